"""Data sets of Hugging Face: from its cache and from folders, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import _stored, load_dataset

pytest.importorskip("datasets.features")  # a folder called datasets is no package of Hugging Face
hf = pytest.importorskip("datasets")

COUNT = 60
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 9, 8, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) % 3
VALUES = np.random.default_rng(1).normal(5, 2, (COUNT, 2, 20)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path / "slimsearch"))
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    hf.disable_progress_bars()
    return tmp_path / "hf"


def images(rows: slice = slice(None), **columns: Any) -> Any:
    features = hf.Features({"img": hf.Image(), "fine": hf.ClassLabel(names=["cat", "dog", "cow"])})
    features |= {name: hf.Value("string") for name in columns}
    pictures = [Image.fromarray(pixels) for pixels in IMAGES[rows]]
    return hf.Dataset.from_dict({"img": pictures, "fine": LABELS[rows], **columns}, features)


def cached(splits: Any, cache: Path, name: str, configuration: str = "default") -> None:
    """What `datasets.load_dataset` leaves in the cache of a data set of the hub."""
    for part, rows in splits.items():
        folder = cache / name.replace("/", "___") / configuration / "0.0.0" / "abc"
        folder.mkdir(parents=True, exist_ok=True)
        with hf.arrow_writer.ArrowWriter(
            path=str(folder / f"{name.rpartition('/')[2]}-{part}.arrow"), features=rows.features
        ) as writer:
            for row in rows.with_format("arrow").iter(1000):
                writer.write_table(row)
            writer.finalize()
    sizes = [{"name": part, "num_examples": len(rows), "dataset_name": name} for part, rows in splits.items()]
    info = hf.DatasetInfo(
        features=rows.features, splits=hf.SplitDict.from_split_dict(sizes), builder_name="parquet",
        dataset_name=name.rpartition("/")[2], config_name=configuration, version="0.0.0",
    )  # fmt: skip
    info.write_to_directory(str(folder))


def test_images_of_the_cache(cache: Path) -> None:
    splits = {"train": images(slice(0, 45)), "test": images(slice(45, None))}
    cached(splits, cache, "someone/animals")
    data = load_dataset("hf:someone/animals")
    assert data.name == "hf:someone/animals"
    assert data.classes == ("cat", "dog", "cow")
    assert data.test is not None
    expected = (IMAGES[:45], LABELS[:45], IMAGES[45:], LABELS[45:])
    assert data.fingerprint == load_dataset(expected).fingerprint
    resized = load_dataset("hf:someone/animals", image_size=6)
    assert resized.input_shape == (3, 6, 6)


def test_a_folder_with_its_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = {"taken": ["somewhere"] * COUNT}
    splits = hf.DatasetDict(train=images(**more), validation=images(slice(0, 30), taken=["there"] * 30), extra=images())
    splits["test"] = splits["extra"].map(lambda row: {"fine": -1})
    splits.save_to_disk(tmp_path / "animals")
    data = load_dataset(tmp_path / "animals")
    assert (data.name, len(data.validation)) == ("animals", 30)
    for note in (
        "the split extra is skipped",
        "the test split has no targets, and is skipped",
        "img is the input and fine the target, and skipped: taken",
    ):
        assert any(note in line for line in data.notes)
        assert note in caplog.text


def test_large_data_sets_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images().save_to_disk(tmp_path / "animals")
    expected = load_dataset(str(tmp_path / "animals")).fingerprint
    monkeypatch.setattr(_stored, "_IN_MEMORY", 0)
    data = load_dataset(str(tmp_path / "animals"))
    assert isinstance(data.train.inputs, _stored.StoredInputs)
    assert data.fingerprint == expected
    with monkeypatch.context() as patch:
        patch.delattr("slimsearch.evaluators.datasets._items._in_processes")
        assert load_dataset(str(tmp_path / "animals")).fingerprint == expected


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("feature", "values", "input_kind"),
    [
        ("Array2D", VALUES, "auto"),
        ("List", VALUES[:, 0], "auto"),
        ("Array3D", IMAGES, "image"),
    ],
)
def test_arrays(
    feature: str, values: Any, input_kind: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = hf.Sequence(hf.Value("float32"), 20)
    if feature != "List":
        kind = getattr(hf, feature)(values.shape[1:], str(values.dtype))
    features = hf.Features({"series": kind, "level": hf.Value("float32"), "person": hf.Value("string")})
    people = [f"person {number % 10}" for number in range(COUNT)]
    rows = hf.Dataset.from_dict({"series": values, "level": np.arange(60.0), "person": people}, features)
    rows.save_to_disk(tmp_path / "series")
    monkeypatch.setattr(_stored, "_IN_MEMORY", 0 if large else 2**30)
    options = {"task": "regression", "input_kind": input_kind}
    data = load_dataset(tmp_path / "series", target_column="level", group_by="person", **options)
    expected = load_dataset((values, np.arange(60.0)), groups=people, **options)
    assert data.fingerprint == expected.fingerprint


@pytest.mark.parametrize("large", [False, True])
def test_columns_of_numbers_and_texts_are_a_table(large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    columns = {"age": rng.integers(0, 99, COUNT), "city": rng.choice(["Bonn", "Ulm"], COUNT), "risk": LABELS}
    features = hf.Features(
        {"age": hf.Value("int64"), "city": hf.Value("string"), "risk": hf.ClassLabel(names=[*"zya"])}
    )
    whole = hf.Dataset.from_dict(columns, features)
    hf.DatasetDict(train=whole.select(range(45)), test=whole.select(range(45, COUNT))).save_to_disk(tmp_path / "rows")
    monkeypatch.setattr(_stored, "_IN_MEMORY", 0 if large else 2**30)
    data = load_dataset(tmp_path / "rows")
    frame = whole.to_pandas().assign(risk=np.array([*"zya"])[LABELS], split=["train"] * 45 + ["test"] * 15)
    assert data.fingerprint == load_dataset(frame, target_column="risk").fingerprint
    assert data.classes == ("a", "y", "z")
    assert {column.name for column in data.columns} == {"age", "city"}


def test_what_is_not_in_the_cache(cache: Path) -> None:
    with pytest.raises(SlimsearchError) as error:
        load_dataset("hf:someone/animals:big")
    assert "is not in the cache of Hugging Face" in str(error.value)
    assert "datasets.load_dataset('someone/animals', 'big')" in str(error.value)
    assert "\n" not in str(error.value)
    for configuration in ("small", "large"):
        cached({"train": images()}, cache, "someone/animals", configuration)
    with pytest.raises(SlimsearchError, match=r"several configurations in the cache of Hugging Face: .*; add one"):
        load_dataset("hf:someone/animals")
    assert len(load_dataset("hf:someone/animals:small").classes) == 3


def test_columns_that_do_not_say_what_is_learned(tmp_path: Path) -> None:
    images(other=["a"] * COUNT).save_to_disk(tmp_path / "a")
    with pytest.raises(
        SlimsearchError, match="--target-column nothing is not a column; columns of 'a': img, fine, other"
    ):
        load_dataset(tmp_path / "a", target_column="nothing")
    rows = hf.Dataset.from_dict({"left": VALUES[:, 0], "right": VALUES[:, 1], "kind": LABELS})
    rows.save_to_disk(tmp_path / "b")
    with pytest.raises(SlimsearchError, match="--target-column is missing; columns of 'b': left, right, kind"):
        load_dataset(tmp_path / "b")
    with pytest.raises(SlimsearchError, match="several columns of images or arrays: left, right"):
        load_dataset(tmp_path / "b", target_column="kind")
