"""Splits: copies of one image are never in two of them, or it is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import Dataset, Split, load_dataset
from tests.conftest import TINY, Run

Array = np.ndarray[Any, np.dtype[Any]]
DIFFERENT = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def contents(part: Split | None) -> list[bytes]:
    assert part is not None
    return [image.tobytes() for image in part.inputs]


def splits_of(data: Dataset) -> tuple[set[bytes], set[bytes], set[bytes]]:
    return set(contents(data.train)), set(contents(data.validation)), set(contents(data.test))


def arrays(numbers: list[list[int]]) -> tuple[Array, Array]:
    """Images by their numbers in `DIFFERENT`, for each class."""
    chosen = np.array([number for members in numbers for number in members])
    return DIFFERENT[chosen], np.array([label for label, members in enumerate(numbers) for _ in members])


COPIES = st.lists(st.integers(1, 6), min_size=3, max_size=20)
"""For each different image of a class, how often it is there."""


@FEW
@given(COPIES, COPIES, st.booleans())
def test_copies_stay_together(first: list[int], second: list[int], dropped: bool) -> None:
    numbers = [np.repeat(np.arange(len(of)) + 50 * label, of).tolist() for label, of in enumerate((first, second))]
    images, labels = arrays(numbers)
    data = load_dataset((images, labels), drop_duplicates=dropped)
    parts = splits_of(data)
    assert sum(map(len, parts)) == len(first) + len(second), "no image is in two splits"
    total = sum(len(contents(part)) for part in (data.train, data.validation, data.test))
    assert total == (len(first) + len(second) if dropped else len(images))
    for part in (data.train, data.validation, data.test):
        assert part is not None
        assert set(part.targets.tolist()) == {0, 1}


def test_splits_are_about_as_large_as_without_copies() -> None:
    data = load_dataset(arrays([[*range(20)] * 3, [*range(20, 40)] * 3]))
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [84, 18, 18]


def test_images_in_two_classes_stay_together(caplog: pytest.LogCaptureFixture) -> None:
    data = load_dataset(arrays([[*range(30)], [*range(20, 50)]]))
    assert sum(map(len, splits_of(data))) == 50
    assert "10 images are in more than one class" in caplog.text


@pytest.mark.parametrize("different", [1, 2])
def test_too_few_different_images_are_separated_and_it_is_said(
    different: int, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = [[*range(different)] * 6, [*range(50, 60)]]
    data = load_dataset(arrays(numbers))
    assert len(data.train) + len(data.validation) + len(contents(data.test)) == 6 * different + 10
    assert "validation images are training images too" in caplog.text
    with pytest.raises(SlimsearchError, match=f"class '0' has {different} images; at least 3"):
        load_dataset(arrays(numbers), drop_duplicates=True)


def folder(root: Path, parts: dict[str, list[int]]) -> Path:
    """Splits of two classes; the images of the second class are those of the first ones, 100 later."""
    for part, numbers in parts.items():
        for name, shift in (("a", 0), ("b", 100)):
            (root / part / name).mkdir(parents=True)
            for position, number in enumerate(numbers):
                Image.fromarray(DIFFERENT[number + shift]).save(root / part / name / f"{position}.png")
    return root


@FEW
@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=20), st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
)  # fmt: skip
def test_copies_in_splits_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, train: list[int], validation: list[int], test: list[int]
) -> None:
    train = [*train, 90, 91]
    root = folder(tmp_path_factory.mktemp("splits"), {"train": train, "val": [*validation, 92], "test": test})
    data = load_dataset(root)
    assert len(data.train) == 2 * len(train)
    data = load_dataset(root, drop_duplicates=True)
    kept, of_validation, of_test = splits_of(data)
    assert not kept & of_validation
    assert not (kept | of_validation) & of_test
    assert len(contents(data.test)) == 2 * len(test), "test images stay"
    assert len(data.train) == 2 * len({*train} - {*validation} - {*test})
    assert len(data.validation) == 2 * len({*validation, 92} - {*test})


def test_copies_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path, {"train": [*range(10)], "val": [0, 1, 2, 20], "test": [3, 20, 30]})
    with caplog.at_level(logging.WARNING):
        load_dataset(root)
    (line,) = caplog.messages
    assert "10 of 34 images are copies" in line
    assert "6 of 8 validation images are training images too" in line
    assert "2 of 6 test images are training images too" in line
    assert "2 of 6 test images are validation images too" in line
    assert "--drop-duplicates" in line


@pytest.mark.parametrize("given", ["val", "test"])
def test_only_one_split_of_the_user(given: str, tmp_path: Path) -> None:
    """The other one is taken from the training images, copies together."""
    root = folder(tmp_path, {"train": [*range(20)] * 2, given: [40, 41, 42]})
    data = load_dataset(root)
    assert data.test is not None
    assert sum(map(len, splits_of(data))) == 2 * 23
    assert len(data.validation if given == "val" else data.test) == 6


def test_the_command_line_says_and_drops_them(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "images", {"train": [*range(20)], "val": [*range(10)], "test": [30, 31]})
    words = ("--space", TINY, "--dataset", root, "--samples", "1", "--no-estimate")
    assert run(*words, command="check").returncode == 0
    assert "20 of 20 validation images are training images too" in caplog.text
    caplog.clear()
    assert run(*words, "--drop-duplicates", command="check").returncode == 0
    assert "20 duplicates dropped" in caplog.text
