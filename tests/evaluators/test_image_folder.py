"""A user's own images: folders, arrays, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import load_dataset


def write(
    folder: Path, count: int = 10, size: tuple[int, int] = (9, 9), mode: str = "RGB", suffix: str = "png"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
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
    assert set(np.unique(data.train.images[data.train.labels == 0][:, 0])) == {10}
    assert set(np.unique(data.train.images[data.train.labels == 1][:, 0])) == {240}


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
        (lambda p: (write(p / "a", size=(8, 6)), write(p / "b", size=(8, 6))), "8x6, not square"),
    ],
)
def test_mistakes(make: object, said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(SlimsearchError, match=r"unknown data set 'mnits'; known: cifar10, digits, .*mnist5k"):
        load_dataset("mnits")


def test_missing_files_of_a_named_data_set(tmp_path: Path) -> None:
    with pytest.raises(
        SlimsearchError, match=r"cannot read MNIST below '.*'.*--data-root, or download them with --download"
    ):
        load_dataset("mnist", root=tmp_path)


LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((40, 8, 8), np.uint8),
        np.zeros((40, 1, 8, 8), np.uint8),
        np.zeros((40, 8, 8, 3), np.uint8),
        np.ones((40, 8, 8), np.float32),
    ],
)
def test_arrays(images: np.ndarray) -> None:
    data = load_dataset((images, LABELS))
    assert data.input_shape[1:] == (8, 8)
    assert data.train.images.dtype == np.uint8
    assert data.train.images.max() == (255 if images.dtype == np.float32 else 0)


def test_a_pytorch_data_set() -> None:
    pairs = [(np.full((8, 8), i, np.uint8), i % 2) for i in range(40)]
    data = load_dataset(pairs)
    assert data.classes == ("0", "1")
    assert data.input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "a data set is a name, a folder"),
        ((np.zeros((4, 8, 8, 5)), LABELS[:4]), "images have the shape"),
        ((np.zeros((40, 8, 8), np.uint8), LABELS[:30]), "needed: 40 integers"),
        ((np.zeros((40, 8, 8), np.uint8), LABELS.astype(float)), "labels are float64"),
        ((np.full((40, 8, 8), 7.5), LABELS), r"needed: uint8, or floats in \[0, 1\]"),
        ((np.full((40, 8, 8), np.nan), LABELS), r"needed: uint8, or floats in \[0, 1\]"),
        ((np.zeros((40, 8, 8), np.uint8), LABELS - 1), "label -1 is negative"),
        (([[1], [1, 2]], LABELS), "not an array"),
        ((np.full((40, 8, 8), "x"), LABELS), "images are <U1"),
        ([(np.zeros((8, 8)), "x")], "pairs of one size"),
        ([(np.zeros((side, 8)), 0) for side in (8, 8, 9)], "pairs of one size"),
        ((*[np.zeros((40, 8, 8), np.uint8), LABELS], *[np.zeros((40, 9, 9), np.uint8), LABELS]), "test images"),
    ],
)
def test_wrong_arrays(data: object, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(data)
