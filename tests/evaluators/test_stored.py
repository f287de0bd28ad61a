"""Data sets that are read from disk in batches: the same examples as in memory, decoded once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import (
    Dataset,
    _array_on_disk,
    _frames,
    _image_folder,
    _items,
    _large_table,
    _stored,
    load_dataset,
)
from slimsearch.evaluators.datasets._stored import StoredInputs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_stored, "_IN_MEMORY", 0)
    monkeypatch.setattr(_array_on_disk, "_BLOCK", 3000)
    monkeypatch.setattr(_frames, "_CELLS", 100)
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    for number in range(90):
        file = tmp_path / "images" / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        same = np.random.default_rng(number // 2) if number < 20 else rng
        Image.fromarray(same.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(file)
    return tmp_path / "images"


class Items:
    """A PyTorch data set, as far as it is needed."""

    def __init__(self, item: Any, count: int = 60) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def gray(index: int) -> tuple[Any, int]:
    return np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8), index % 3


def signal(index: int) -> tuple[Any, float]:
    return np.random.default_rng(index).normal(5, 2, (2, 9)), float(index)


def assert_equal(stored: Dataset, expected: Dataset) -> None:
    for split, other in zip(splits(stored), splits(expected), strict=True):
        assert isinstance(split.inputs, StoredInputs)
        assert isinstance(other.inputs, np.ndarray)
        assert (split.inputs.shape, split.inputs.dtype) == (other.inputs.shape, other.inputs.dtype)
        assert np.array_equal(split.inputs, other.inputs)
        assert np.array_equal(split.targets, other.targets)
    assert (stored.notes, stored.columns) == (expected.notes, expected.columns)
    assert np.allclose([stored.mean, stored.std], [expected.mean, expected.std], rtol=1e-12)
    assert stored.fingerprint == expected.fingerprint


def splits(data: Dataset) -> list[Any]:
    return [data.train, data.validation, data.test]


def in_memory(monkeypatch: pytest.MonkeyPatch, data: Any, **options: Any) -> Dataset:
    with monkeypatch.context() as patch:
        patch.setattr(_stored, "_IN_MEMORY", 2**30)
        return load_dataset(data, **options)


@pytest.mark.parametrize("options", [{}, {"image_size": "6x5"}, {"drop_duplicates": True}])
def test_a_folder_is_as_in_memory(options: dict[str, Any], images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = in_memory(monkeypatch, images, **options)
    assert_equal(load_dataset(images, **options), expected)


@pytest.mark.parametrize(("item", "options"), [(gray, {}), (signal, {"task": "regression"})])
def test_items_are_as_in_memory(item: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal(load_dataset(Items(item), **options), in_memory(monkeypatch, Items(item), **options))


def test_images_are_decoded_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(images)
    with monkeypatch.context() as patch:
        for name in ("read_image", "read_header"):
            patch.delattr(_image_folder, name)
        again = load_dataset(images)
    assert again.fingerprint == first.fingerprint
    changed = images / "a" / "0.png"
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(changed)
    assert load_dataset(images).fingerprint != first.fingerprint


def test_items_are_read_once_and_again_if_they_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(Items(gray))
    with monkeypatch.context() as patch:
        patch.delattr(_items, "_in_processes")
        assert load_dataset(Items(gray)).fingerprint == first.fingerprint
    others = load_dataset(Items(lambda index: gray(index + 1)))
    assert others.fingerprint != first.fingerprint


def test_processes_that_hold_too_much_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def holding(index: int) -> Any:
        held.append(np.ones(2**18))  # 2 MiB, as the pages of a mapped file
        return gray(index)

    expected = in_memory(monkeypatch, Items(gray, 300))
    held.clear()
    monkeypatch.setattr(_items, "_MOST_GROWTH", 2**24)
    monkeypatch.setattr(_items, "_LOOKS", 1)
    begun: list[int] = []
    looked = _items._until_memory_grows
    monkeypatch.setattr(
        _items, "_until_memory_grows", lambda read, first, count: begun.append(first) or looked(read, first, count)
    )
    assert load_dataset(Items(holding, 300)).fingerprint == expected.fingerprint
    assert len(begun) > 1
    assert begun == sorted(set(begun))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (lambda i: gray(i) if i != 37 else (np.zeros((8, 9), np.uint8), 0), "images have 2 different sizes"),
        (lambda i: gray(i) if i != 37 else 1 / 0, "item 37 of the data set cannot be read: ZeroDivisionError"),
        (lambda i: (signal(i)[0], 0) if i != 37 else (np.ones((2, 5)), 1), r"item 37 .* has the shape \(2, 5\)"),
    ],
)
def test_items_that_cannot_be_read(item: Any, said: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_items, "_LOOKED_AT", 2)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(Items(item))
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_workers_share_the_file(images: Path, tmp_path: Path) -> None:
    data = load_dataset(images)
    data.without_test().save(tmp_path / "saved")
    loaded = Dataset.load(tmp_path / "saved", data.task)
    assert loaded.fingerprint == data.without_test().fingerprint
    assert isinstance(data.train.inputs, StoredInputs)
    assert (tmp_path / "saved" / "train_inputs.npy").samefile(data.train.inputs.file)


def test_any_index_is_that_of_an_array(images: Path, rng: np.random.Generator) -> None:
    inputs = load_dataset(images).train.inputs
    everything = np.asarray(inputs)
    chosen = rng.integers(-len(inputs), len(inputs), 20)
    for index in (
        0,
        -1,
        slice(3, 9),
        slice(9, 2, -2),
        slice(5, 5),
        chosen,
        np.sort(chosen),
        everything[:, 0, 0, 0] > 99,
    ):
        assert np.array_equal(inputs[index], everything[index])


def test_what_was_used_least_recently_makes_room(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (Items(lambda index, step=step: (gray(index * step)[0], index % 3)) for step in (2, 3, 5))
    fingerprint = load_dataset(first).fingerprint
    used = load_dataset(second)
    entries = {
        entry: number for number, entry in enumerate(sorted(filter(Path.is_dir, cache.iterdir()), key=os.path.getmtime))
    }
    for entry, number in entries.items():
        os.utime(entry, (number, number))
    monkeypatch.setattr(_stored, "_SHARE", 0.0)
    load_dataset(third)
    assert "removed" in caplog.text
    assert used.fingerprint == load_dataset(second).fingerprint
    assert isinstance(used.train.inputs, StoredInputs)
    assert used.train.inputs.file.is_file()
    assert len([entry for entry in entries if entry.is_dir()]) == 1
    assert load_dataset(first).fingerprint == fingerprint


def test_too_little_room_is_said_before(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stored.shutil, "disk_usage", lambda path: (10**9, 10**9, 1000))
    monkeypatch.delattr(_image_folder, "read_image")
    with pytest.raises(SlimsearchError, match=r"needs 0 MiB of disk in .* free: set SLIMSEARCH_CACHE"):
        load_dataset(images)
    monkeypatch.setenv("SLIMSEARCH_CACHE", "/proc/nowhere")
    with pytest.raises(SlimsearchError, match="cannot write to the cache '/proc/nowhere/datasets'"):
        load_dataset(images)


def test_a_reading_that_was_killed_is_begun_anew(images: Path, cache: Path) -> None:
    first = load_dataset(images)
    (entry,) = filter(Path.is_dir, cache.iterdir())
    (entry / "facts.json").unlink()
    entry.rename(entry.with_name(f"{entry.name}.part"))
    assert load_dataset(images).fingerprint == first.fingerprint
    assert not list(cache.glob("*.part"))


def test_progress(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stored, "_SECONDS", 0.0)
    load_dataset(Items(gray))
    assert "data set 'arrays': 30 of 60 read, " in caplog.text


RNG = np.random.default_rng(0)
ARRAYS = {
    "signals": RNG.normal(5, 2, (90, 2, 30)).astype(np.float32),
    "doubles": RNG.normal(5, 2, (90, 2, 30)),
    "table": RNG.integers(0, 9, (90, 5), dtype=np.uint8),
    "gray": RNG.integers(0, 256, (90, 9, 8), dtype=np.uint8),
    "pixels": RNG.random((90, 9, 8, 3)),
    "channels": RNG.integers(0, 256, (90, 5, 9, 8), dtype=np.uint8),
}
LABELS = np.arange(90) % 3


def array_file(folder: Path, inputs: Any, form: str) -> Path:
    folder.mkdir(exist_ok=True)
    parts = {"x": inputs[:75], "y": LABELS[:75], "x_test": inputs[75:], "y_test": LABELS[75:]}
    if form == "npy":
        for name, array in parts.items():
            np.save(folder / f"{name}.npy", array)
        return folder
    (np.savez if form == "npz" else np.savez_compressed)(folder / "a.npz", **parts)
    return folder / "a.npz"


@pytest.mark.parametrize("form", ["npy", "npz", "compressed"])
@pytest.mark.parametrize("inputs", ARRAYS)
def test_arrays_in_files_are_as_in_memory(
    inputs: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = array_file(tmp_path / "arrays", ARRAYS[inputs], form)
    for options in ({}, {"image_size": "6x5"} if inputs in ("gray", "pixels") else {"drop_duplicates": True}):
        assert_equal(load_dataset(file, **options), in_memory(monkeypatch, file, **options))
    with monkeypatch.context() as patch:
        patch.delattr(_array_on_disk.ArrayOnDisk, "blocks")
        load_dataset(file)


def test_an_npy_file_that_needs_no_conversion_is_not_copied(tmp_path: Path) -> None:
    file = array_file(tmp_path / "arrays", ARRAYS["signals"], "npy")
    data = load_dataset(file)
    assert isinstance(data.train.inputs, StoredInputs)
    assert data.train.inputs.file.samefile(file / "x.npy")
    data.without_test().save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved", data.task).fingerprint == data.without_test().fingerprint
    before = data.fingerprint
    np.save(file / "x.npy", ARRAYS["signals"][:75] + 1)
    with pytest.raises(SlimsearchError, match=r"x\.npy' was changed while it is in use"):
        data.train.inputs[:3]
    assert load_dataset(file).fingerprint != before


@pytest.mark.parametrize("form", ["npy", "npz", "compressed"])
def test_arrays_that_end_too_early(form: str, tmp_path: Path) -> None:
    file = array_file(tmp_path / "arrays", ARRAYS["channels"], form)
    damaged = file / "x.npy" if form == "npy" else file
    content = bytearray(damaged.read_bytes())
    content[9000:9100] = bytes(100)
    damaged.write_bytes(content[:20_000] if form == "npy" else content)
    with pytest.raises(SlimsearchError, match="cannot read"):
        load_dataset(file)


def test_values_that_are_no_pixels(tmp_path: Path) -> None:
    file = array_file(tmp_path / "arrays", ARRAYS["pixels"] * 300.0, "npz")
    assert load_dataset(file).train.inputs.dtype == np.float32
    with pytest.raises(SlimsearchError, match=r"images are float64 from .* needed: uint8, or floats in \[0, 1\]"):
        load_dataset(file, input_kind="image")


ROWS = 300
FRAME = pandas.DataFrame(
    {
        "id": [f"row-{number}" for number in range(ROWS)],
        "age": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.integers(20, 80, ROWS)),
        "city": RNG.choice(["Bonn", "Köln", "Ulm, Süd"], ROWS),
        "job": np.where(RNG.random(ROWS) < 0.2, None, RNG.choice(["a", "b"], ROWS)),
        "smoker": RNG.random(ROWS) < 0.5,
        "always": "same",
        "late": [str(number % 7).zfill(2) if number != 250 else "x" for number in range(ROWS)],
        "often": [f"c{number % 40:02}" for number in range(ROWS)],
        "empty": np.nan,
        "flag": np.where(RNG.random(ROWS) < 0.05, None, RNG.random(ROWS) < 0.5),
        "patient": RNG.integers(0, 30, ROWS),
        "income": 900.0 + RNG.permutation(ROWS),
        "stars": RNG.integers(1, 4, ROWS),
        "risk": np.where(np.arange(ROWS) == 7, None, RNG.choice(["low", "high"], ROWS)),
    }
)
TWICE = pandas.concat([FRAME, FRAME.assign(id=[f"again-{number}" for number in range(ROWS)])])
PARTS = np.array(["train", "Validation", "test"])[np.arange(ROWS) % 3]


def table_file(path: Path, frame: Any) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=";")
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("frame", "options"),
    [
        (FRAME, {"target_column": "risk", "group_by": "patient"}),
        (FRAME, {"target_column": "income", "task": "regression"}),
        (FRAME, {"target_column": "smoker,stars", "task": "regression"}),
        (FRAME.assign(Split=PARTS), {"target_column": "stars"}),
        (TWICE, {"target_column": "smoker", "group_by": "job"}),
        (TWICE, {"target_column": "city", "drop_duplicates": True}),
    ],
)
def test_tables_are_as_in_memory(
    frame: Any, options: dict[str, Any], ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table_file(tmp_path / f"a.{ending}", frame)
    found, expected = load_dataset(file, **options), in_memory(monkeypatch, file, **options)
    assert found.classes == expected.classes
    assert_equal(found, expected)
    with monkeypatch.context() as patch:
        patch.delattr(_large_table, "_rows_with")
        load_dataset(file, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"target_column": "nope"}, {"target_column": "income"}, {"target_column": "risk", "task": "regression"}],
)
def test_mistakes_in_tables_are_said_as_in_memory(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, said = table_file(tmp_path / "a.csv", FRAME), []
    for read in (load_dataset, lambda *given, **options: in_memory(monkeypatch, *given, **options)):
        with pytest.raises(SlimsearchError) as error:
            read(file, **options)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_columns_with_too_many_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_large_table, "_MOST_TEXTS", 30)
    data = load_dataset(table_file(tmp_path / "a.csv", FRAME), target_column="risk")
    assert any("columns with more than 30 different texts are not used: id, often" in note for note in data.notes)
    with pytest.raises(SlimsearchError, match="--target-column often has more than 30 different texts"):
        load_dataset(tmp_path / "a.csv", target_column="often")
