"""Image folders: layouts, the files that are read, those that are skipped, and mistakes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import load_dataset


def write(
    folder: Path, count: int = 10, size: tuple[int, int] = (9, 9), mode: str = "RGB", suffix: str = "png"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([count, *str(folder).encode()])
    shape = (*reversed(size), 3) if mode == "RGB" else tuple(reversed(size))
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.{suffix}")


def test_train_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 5)):
        for name in ("cat", "dog"):
            write(tmp_path / part / name, count)
    data = load_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (3, 9, 9)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 10)


def test_one_folder_is_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name, 20, mode="L", suffix="jpg")
    data = load_dataset(str(tmp_path))
    assert data.input_shape == (1, 9, 9)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (42, 9, 9)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    for value, name in ((10, "dark"), (240, "light")):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (4, 4), (value, i, 0)).save(tmp_path / name / f"{i}.png")
    data = load_dataset(tmp_path)
    assert set(np.unique(data.train.inputs[data.train.targets == 0][:, 0])) == {10}
    assert set(np.unique(data.train.inputs[data.train.targets == 1][:, 0])) == {240}


def test_other_sizes_need_an_image_size(tmp_path: Path) -> None:
    write(tmp_path / "a", size=(8, 8))
    write(tmp_path / "b", size=(12, 9))
    with pytest.raises(SlimsearchError, match=r"2 different sizes \(8x8, 12x9.*pass --image-size"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, image_size=16).input_shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "has no class folders"),
        (lambda p: (p / "a").mkdir(), "'.*a' has no images"),
        (
            lambda p: (write(p / "a"), (p / "b").mkdir(), (p / "b" / "x.png").write_bytes(b"no image")),
            "cannot read .*x.png",
        ),
        (lambda p: write(p / "a"), "has 1 class; at least 2"),
        (lambda p: (write(p / "a"), write(p / "b", 2)), "class 'b' has 2 images; at least 3"),
        (
            lambda p: [write(p / part / name) for part, name in (("train", "a"), ("train", "b"), ("test", "a"))],
            "train and test have different classes .b in only one",
        ),
    ],
)
def test_mistakes(make: object, said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(tmp_path)


TRAIN = st.sampled_from(["train", "training", "Train", "training_set", "train2017", "trainset", "Train Images"])
VALIDATION = st.sampled_from([None, "val", "valid", "validation", "dev", "VAL", "eval", "val2017", "valid_data"])
TEST = st.sampled_from([None, "test", "testing", "Test", "test_set", "test-images"])
JUNK = [
    "._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden/0.png", "__MACOSX/a/._0.png", "@eaDir/0.png",
    ".ipynb_checkpoints/0.png",
]  # fmt: skip
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@FEW
@given(
    TRAIN, VALIDATION, TEST, st.tuples(st.integers(10, 14), st.integers(3, 6), st.integers(3, 6)),
    st.lists(st.tuples(st.sampled_from(["", "train", "train/a", "train/b"]), st.sampled_from(JUNK)), max_size=4),
    st.booleans(),
)  # fmt: skip
def test_layouts(
    tmp_path_factory: pytest.TempPathFactory, train: str, validation: str | None, test: str | None,
    counts: tuple[int, int, int], junk: list[tuple[str, str]], nested: bool,
) -> None:  # fmt: skip
    root = tmp_path_factory.mktemp("layout")
    for part, count in zip((train, validation, test), counts, strict=True):
        for name in ("a", "b"):
            if part is not None:
                write(root / part / name / ("2023/may" if nested else ""), count)
    for folder, name in junk:
        path = root / folder.replace("train", train) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([0, 5, 22, 7]) + b"Mac OS X")
    data = load_dataset(root)
    assert data.classes == ("a", "b")
    assert data.test is not None
    of_train = 2 * counts[0]
    held = (
        1 if validation or test else max(1, round(counts[0] * 0.15))
    )  # of each class, for each split without a folder
    sizes = [2 * counts[position] if part else 2 * held for position, part in ((1, validation), (2, test))]
    assert [len(data.validation), len(data.test)] == sizes
    assert len(data.train) == of_train - 2 * held * [validation, test].count(None)


@pytest.mark.parametrize("parts", [["val"], ["test"], ["test", "valid"], ["testing", "validation"]])
def test_without_training_images(parts: list[str], tmp_path: Path) -> None:
    for part in parts:
        write(tmp_path / part / "a")
        write(tmp_path / part / "b")
    with pytest.raises(SlimsearchError, match=f"has {'.*, '.join(parts)}.* but no train/ .*expected train/<class>"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("folders", [("seg_train", "seg_test", "seg_pred"), ("images_train", "images_val")])
def test_folders_that_look_like_splits(folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        write(tmp_path / folder / "a")
        write(tmp_path / folder / "b")
    with pytest.raises(SlimsearchError, match=r"_train/.* look like splits; expected train/<class>"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "names",
    [["car", "train"], ["invalid", "valid"], ["dev", "test", "x"], ["set1", "set2"], ["bus stop", "train stop"]],
)
def test_classes_that_are_called_like_splits(names: list[str], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name)
    assert load_dataset(tmp_path).classes == tuple(names)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["val/a", "val/b", "valid/a", "valid/b"], "has val/ and valid/, both for validation"),
        (["test"], "'test' has no class folders"),
        (["val/a"], "train and val have different classes .b in only one"),
        (["test/A", "test/b"], "A, a in only one"),
    ],
)
def test_splits_that_do_not_fit(others: list[str], said: str, tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", *others):
        write(tmp_path / folder)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(tmp_path)


def test_one_folder_too_high(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "pets" / name)
    with pytest.raises(SlimsearchError, match=r"has 1 class, 'pets'; for 2 classes pass '.*pets'"):
        load_dataset(tmp_path)


def said_of(root: Path, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.WARNING):
        load_dataset(root)
    assert all(message.isprintable() for message in caplog.messages)
    return "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/x\n.heic": 1}, "1 file skipped: .heic 1"),
        ({"a/x.heic": 3, "b/y.HEIC": 2, "b/deep/z.txt": 1}, "6 files skipped: .heic 5, .txt 1"),
        ({"a/README": 1}, "1 file skipped: no ending 1"),
        ({"a/x.he\x1bic": 1}, r"1 file skipped: .he\x1bic 1"),
        ({f"a/x.{ending}": 1 for ending in "abcdefghij"}, "and 2 other endings"),
    ],
)
def test_files_that_are_not_read_are_counted(
    files: dict[str, int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    for name, count in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        for number in range(count):
            path.with_stem(f"{path.stem}{number}" if path.suffix else path.stem).write_bytes(b"x")
    assert said in said_of(tmp_path, caplog)
    assert said in "".join(load_dataset(tmp_path).notes)


def test_other_folders_links_and_loose_images_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b", "holdout/a"):
        write(tmp_path / name)
    write(tmp_path / "train", 2)
    (tmp_path / "train" / "a" / "more").symlink_to(tmp_path / "holdout")
    said = said_of(tmp_path, caplog)
    assert "are not read: holdout" in said
    assert "2 images are not in a class folder" in said
    assert "linked folder 1" in said


def test_nothing_is_said_of_a_plain_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert said_of(tmp_path, caplog) == ""


def test_a_class_whose_files_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.heic").write_bytes(b"x")
    with pytest.raises(SlimsearchError, match=r"'.*b' has no images .1 file skipped: .heic 1"):
        load_dataset(tmp_path)


def test_more_images_than_the_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand links to one file, whose pixels would need 150 GiB, are refused by their headers alone."""
    monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (2**40, 2**40 - 2**36, 2**36))
    Image.new("1", (9000, 9000)).save(tmp_path / "white.png")
    for number in range(2000):
        link = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(tmp_path / "white.png")
    with pytest.raises(
        SlimsearchError, match=r"needs 150\.\d GiB of disk .* 64\.0 GiB are free: .* a smaller --image-size"
    ):
        load_dataset(tmp_path / "images")
    with pytest.raises(SlimsearchError, match=r"need .* GiB of memory"):
        load_dataset("digits", image_size=50_000)


@pytest.mark.parametrize("name", ["", "~nobody/images", "x" * 5000, "a\0b"])
def test_names_that_are_no_path(name: str) -> None:
    with pytest.raises(SlimsearchError, match="unknown data set"):
        load_dataset(name)


@pytest.mark.parametrize("size", [0, -1, 2.5, "8x", "0x8", "x8"])
def test_wrong_sizes(size: Any) -> None:
    with pytest.raises(SlimsearchError, match="is neither a whole number from 1 nor WIDTHxHEIGHT"):
        load_dataset("digits", image_size=size)


def test_unknown_names() -> None:
    with pytest.raises(SlimsearchError, match=r"unknown data set 'mnits'; known: cifar10, digits, .*mnist5k"):
        load_dataset("mnits")


def test_missing_files_of_a_named_data_set(tmp_path: Path) -> None:
    with pytest.raises(SlimsearchError, match=r"cannot read MNIST below '.*': .*--data-root, or add --download$"):
        load_dataset("mnist", root=tmp_path)
