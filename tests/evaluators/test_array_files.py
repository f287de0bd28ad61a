"""Data sets in NumPy files, and groups of examples that stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import load_dataset

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(size=(60, 2, 30))
LABELS = np.arange(60) % 3


def test_an_npz_file_is_what_its_arrays_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SIGNALS, y=LABELS, unused=SIGNALS)
    data = load_dataset(tmp_path / "a.npz")
    assert data.name == "a.npz"
    assert data.fingerprint == load_dataset((SIGNALS, LABELS)).fingerprint


def test_a_folder_of_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", SIGNALS)
    np.save(tmp_path / "x.npy", SIGNALS)
    np.save(tmp_path / "y.npy", LABELS)
    assert load_dataset(str(tmp_path)).fingerprint == load_dataset((SIGNALS, LABELS)).fingerprint


def test_splits_of_the_user_are_used(tmp_path: Path) -> None:
    parts = {"x": SIGNALS[:30], "x_val": SIGNALS[30:45], "x_test": SIGNALS[45:]}
    parts |= {"y": LABELS[:30], "y_val": LABELS[30:45], "y_test": LABELS[45:]}
    np.savez_compressed(tmp_path / "a.npz", **parts)
    data = load_dataset(tmp_path / "a.npz")
    assert data.test is not None
    for split, start, end in ((data.train, 0, 30), (data.validation, 30, 45), (data.test, 45, 60)):
        assert np.array_equal(split.inputs, SIGNALS[start:end].astype(np.float32))
        assert np.array_equal(split.targets, LABELS[start:end])
    given = {"train": (SIGNALS[:30], LABELS[:30]), "val": (SIGNALS[30:45], LABELS[30:45])}
    assert load_dataset({**given, "test": (SIGNALS[45:], LABELS[45:])}).fingerprint == data.fingerprint


def test_texts_are_names_of_classes(tmp_path: Path) -> None:
    names = np.array(["walk", "run", "still"])[LABELS]
    np.savez(tmp_path / "a.npz", x=SIGNALS, y=names)
    data = load_dataset(tmp_path / "a.npz")
    assert data.classes == ("run", "still", "walk")
    found = {
        row.tobytes(): data.classes[label] for row, label in zip(data.train.inputs, data.train.targets, strict=True)
    }
    expected = {row.astype(np.float32).tobytes(): name for row, name in zip(SIGNALS, names, strict=True)}
    assert found.items() <= expected.items()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": SIGNALS}, "has x; needed: arrays x and y"),
        ({"images": SIGNALS}, "has none of these; needed: arrays x and y"),
        ({"x": SIGNALS, "y": LABELS, "x_val": SIGNALS}, "has x, x_val, y; needed"),
        ({"x": SIGNALS, "y": LABELS[1:]}, "needed: 60, one per example"),
        ({"x": SIGNALS, "y": np.array([{}] * 60)}, "holds Python objects, which are not read"),
        ({"x": SIGNALS, "y": LABELS, "groups": LABELS[1:]}, r"groups are int64 of the shape \(59,\); needed"),
        ({"x": SIGNALS, "y": LABELS, "groups": np.zeros(60)}, "has 1 groups .*; at least 3 are needed"),
    ],
)
def test_what_is_no_data_set(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(tmp_path / "a.npz")


def test_damaged_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SIGNALS, y=LABELS)
    content = (tmp_path / "a.npz").read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 255
    np.save(tmp_path / "array.npy", SIGNALS)
    for broken in (b"", b"text", content[:900], bytes(damaged), (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "b.npz").write_bytes(broken)
        with pytest.raises(SlimsearchError, match=r"b\.npz'"):
            load_dataset(tmp_path / "b.npz")


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_in_one_split(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    inputs, labels, groups = rng.normal(size=(300, 4)), rng.integers(0, 3, 300), rng.integers(0, 25, 300)
    inputs[7] = inputs[8]  # a copy in another group: both groups are in one split
    np.savez(tmp_path / "a.npz", x=inputs, y=labels, groups=[f"patient {group}" for group in groups])
    data = load_dataset(tmp_path / "a.npz")
    group_of = {row.astype(np.float32).tobytes(): group for row, group in zip(inputs, groups, strict=True)}
    assert data.test is not None
    found = [{group_of[row.tobytes()] for row in split.inputs} for split in (data.train, data.validation, data.test)]
    assert sum(map(len, found)) == len(set.union(*found))
    assert len(set.union(*found)) == len(set(groups))
    assert all(25 <= len(split) <= 65 for split in (data.validation, data.test))
    assert data.fingerprint == load_dataset((inputs, labels), groups=groups).fingerprint


def test_classes_that_no_group_has_in_a_split_are_named(caplog: pytest.LogCaptureFixture) -> None:
    groups = np.arange(60) // 6
    labels = np.where(groups == 0, 2, np.arange(60) % 2)
    data = load_dataset((RNG.normal(size=(60, 4)), labels), groups=groups)
    assert set(data.train.targets) == {0, 1, 2}
    assert [note for note in data.notes if "no validation example has the class 2" in note]
    assert "no test example has the class 2" in caplog.text


FUNCTIONS = """
import numpy as np


class Items:
    def __init__(self, first, end):
        self.first, self.end = first, end

    def __len__(self):
        return self.end - self.first

    def __getitem__(self, index):
        rng = np.random.default_rng(self.first + index)
        return rng.integers(0, 256, (8, 8), dtype=np.uint8), int(rng.integers(0, 3))


def three():
    return Items(0, 100), Items(100, 150), Items(150, 220)


def some():
    return {"train": Items(0, 100), "test": Items(150, 220)}


def one():
    return Items(0, 100)


def arrays():
    return np.arange(120.0).reshape(60, 2), np.arange(60) % 2


def nothing():
    pass


def fails():
    raise KeyError("x")
"""


@pytest.mark.parametrize(
    ("function", "sizes"),
    [("three", (100, 50, 70)), ("some", (91, 9, 70)), ("one", (70, 15, 15)), ("arrays", (42, 9, 9))],
)
def test_functions_of_the_user(function: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "my_sets.py").write_text(FUNCTIONS)
    data = load_dataset(f"{tmp_path}/my_sets.py:{function}")
    assert data.name == f"my_sets.py:{function}"
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == pytest.approx(sizes, abs=2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "gives NoneType; needed: PyTorch data sets or arrays"),
        ("fails", "my_sets.py:fails': KeyError: 'x'"),
        ("other", "has no 'other'"),
    ],
)
def test_functions_that_give_no_data(function: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "my_sets.py").write_text(FUNCTIONS)
    with pytest.raises(SlimsearchError, match=said):
        load_dataset(f"{tmp_path}/my_sets.py:{function}")
