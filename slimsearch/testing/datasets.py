"""Laws of data sets: splits, normalization, and the copy that workers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.testing._contract import Contract


class DatasetContract(Contract):
    """Laws of every data set.

    Attributes:
        data: a name, the path of a data set, or a function that returns what `load_dataset` takes, such as arrays; or a
            list of these.
        options: of `load_dataset`.
    """

    subject = "data"
    data: Any
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, data: Any) -> Dataset:
        """The data set under test."""
        return _load(data, cls.options)

    def test_every_split_has_examples_of_every_class(self, dataset: Dataset) -> None:
        for split in _splits(dataset):
            assert split.inputs.dtype in (np.uint8, np.float32)
            assert split.inputs.shape[1:] == dataset.input_shape
            assert len(split.inputs) == len(split.targets)
            if dataset.task.name == "classification":
                assert set(split.targets.tolist()) == set(range(len(dataset.classes)))

    def test_the_splits_are_always_the_same(self, dataset: Dataset, data: Any) -> None:
        again = _load(data, self.options)
        assert dataset.test is not None
        assert again.fingerprint == dataset.fingerprint
        for split, other in zip(_splits(dataset), _splits(again), strict=True):
            assert np.array_equal(split.inputs, other.inputs)
            assert np.array_equal(split.targets, other.targets)

    def test_no_example_is_in_two_splits(self, dataset: Dataset) -> None:
        """Up to 1% of the examples may be equal to others."""
        images = np.concatenate([split.inputs for split in _splits(dataset)])
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 0.99 * len(images)

    def test_training_inputs_are_normalized(self, dataset: Dataset) -> None:
        images = dataset.normalise(np.asarray(dataset.train.inputs))
        assert images.shape[1:] == dataset.input_shape
        assert abs(float(images.mean())) < 1e-3
        assert abs(float(images.std(correction=0)) - 1) < 1e-3

    def test_workers_get_a_copy_without_the_test_split(self, dataset: Dataset, tmp_path: Path) -> None:
        dataset.without_test().save(tmp_path)
        loaded = Dataset.load(tmp_path, dataset.task)
        assert loaded.test is None
        assert not list(tmp_path.glob("*test*"))
        assert loaded.without_test().fingerprint == dataset.without_test().fingerprint
        assert loaded.metadata() == dataset.metadata()

    def test_images_are_resized(self, dataset: Dataset, data: Any) -> None:
        if dataset.train.inputs.ndim != 4:
            pytest.skip("no images")
        resized = _load(data, {**self.options, "image_size": 12})
        assert resized.input_shape == (dataset.input_shape[0], 12, 12)
        assert len(resized.train) == len(dataset.train)
        difference = abs(np.asarray(resized.train.inputs).mean() - np.asarray(dataset.train.inputs).mean())
        assert difference < 2, "resizing changes the brightness"


def _splits(dataset: Dataset) -> list[Any]:
    return [split for split in (dataset.train, dataset.validation, dataset.test) if split is not None]


def _load(data: Any, options: dict[str, Any]) -> Dataset:
    return load_dataset(data() if callable(data) else data, **options)
