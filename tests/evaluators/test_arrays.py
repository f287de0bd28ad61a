"""Data sets from Python: arrays, PyTorch data sets, and whatever else is handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators.datasets import load_dataset

LABELS = np.arange(40) % 4
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        (PIXELS[..., 0], 1),
        (PIXELS[:, None, ..., 0], 1),
        (PIXELS, 3),
        (PIXELS / 255, 3),
        (PIXELS[..., 0] > 127, 1),
        (torch.from_numpy(PIXELS[..., 0] / 255).bfloat16(), 1),
        (torch.from_numpy(PIXELS / 255).requires_grad_(), 3),
        ([Image.fromarray(pixels) for pixels in PIXELS], 3),
        ([*PIXELS[:20], *PIXELS[20:, ..., 0]], 3),
    ],
)
def test_arrays(images: Any, channels: int) -> None:
    data = load_dataset((images, LABELS))
    assert data.input_shape == (channels, 8, 8)
    assert data.train.inputs.dtype == np.uint8
    assert data.train.inputs.max() > 250


class Items(Dataset[Any]):
    """A PyTorch data set whose items come from a function."""

    def __init__(self, item: Callable[[int], Any], count: int = 40) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Images(Items):
    classes = ("a", "b", "c", "d")


def photo(index: int, size: int = 8, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (size, size, 4), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([(np.full((8, 8), i, np.uint8), i % 2) for i in range(40)], (1, 8, 8)),
        (Items(lambda i: (photo(i), i % 2)), (3, 8, 8)),
        (Items(lambda i: [photo(i, mode="L"), np.int64(i % 2)]), (1, 8, 8)),
        (Items(lambda i: (photo(i, mode=("L", "P", "RGBA", "1")[i % 4]), torch.tensor(i % 2))), (3, 8, 8)),
        (Items(lambda i: (torch.rand(3, 8, 8, generator=torch.manual_seed(i)), i % 2 == 1)), (3, 8, 8)),
        (TensorDataset(torch.rand(40, 1, 8, 8), torch.arange(40) % 2), (1, 8, 8)),
        (Subset(Items(lambda i: (photo(i), i % 2)), range(30)), (3, 8, 8)),
    ],
)
def test_pytorch_data_sets(data: Any, shape: tuple[int, ...]) -> None:
    found = load_dataset(data)
    assert found.input_shape == shape
    assert found.classes == ("0", "1")


@pytest.mark.parametrize(
    ("item", "skipped"),
    [
        *(
            (lambda i, image=image, label=label: {image: photo(i), label: i % 2}, None)
            for image in ("image", "img", "pixel_values", "X")
            for label in ("label", "labels", "Target", "y")
        ),
        (lambda i: {"id": i, "label": i % 2, "image": photo(i), "\x1b[2J": 0}, r"skipped: id, \x1b[2J"),
        (lambda i: (photo(i), i % 2, f"{i}.png"), "skipped: part 3"),
        (lambda i: (photo(i), torch.tensor(i % 2), i, {"weight": 1.0}), "skipped: part 3, part 4"),
    ],
)
def test_items_with_more_than_an_image_and_a_label(
    item: Callable[[int], Any], skipped: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_dataset(Items(item))
    expected = load_dataset(Items(lambda i: (photo(i), i % 2)))
    assert data.fingerprint == expected.fingerprint
    assert [skipped in note for note in data.notes] == ([True] if skipped else [])
    assert caplog.messages == list(data.notes)


def test_class_names_of_a_data_set() -> None:
    assert load_dataset(Images(lambda i: (photo(i), i % 4))).classes == ("a", "b", "c", "d")
    data = Images(lambda i: (photo(i), i % 4))
    for unusable in (7, None, ["a"], property(lambda self: 1 / 0)):
        data.classes = unusable  # type: ignore[assignment]
        assert load_dataset(data).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    "item",
    [
        lambda i: (photo(i, 8 + i % 3), i % 2),
        lambda i: (torch.rand(1, 8, 8 + i % 3), i % 2),
        lambda i: (np.random.default_rng(i).random((8 + i % 3, 9, 3)), i % 2),
    ],
)
def test_images_of_several_sizes(item: Callable[[int], Any]) -> None:
    with pytest.raises(SlimsearchError, match=r"images have 3 different sizes .*pass --image-size"):
        load_dataset(Items(item))
    assert load_dataset(Items(item), image_size=6).input_shape[1:] == (6, 6)
    images = [item(i)[0] for i in range(40)]
    assert load_dataset((images, [i % 2 for i in range(40)]), image_size=6).input_shape[1:] == (6, 6)


def test_alpha_palette_and_bits_of_pil_images_are_kept() -> None:
    """Each is composited or converted as in an image file, and not taken for its indices."""
    clear = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    colors = Image.fromarray(np.tile(np.uint8([[[200, 10, 10], [10, 10, 200]]]), (8, 4, 1))).quantize(2)
    bits = Image.fromarray(np.eye(8) > 0)
    for image, expected in ((clear, {255}), (colors, {200, 10}), (bits, {0, 255})):
        data = load_dataset(Items(lambda i, image=image: (image if i % 2 else photo(i), i % 2)))
        assert set(np.unique(data.train.inputs[data.train.targets == 1])) == expected


class Strange:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    def __index__(self) -> int:
        raise KeyError("boom")


class NoLength(Items):
    def __len__(self) -> int:
        raise NotImplementedError


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield photo(0), 0


def fails(error: BaseException) -> Callable[[int], Any]:
    def item(index: int) -> Any:
        if index == 17:
            raise error
        return photo(index), index % 2

    return item


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "a data set is a name, a folder"),
        ({"train": 1}, "not int"),
        (
            {"x": PIXELS, "y": LABELS},
            "a dict of splits has the keys train, and validation or test; this one has 'x', 'y'",
        ),
        ({"test": Items(photo)}, "this one has 'test'"),
        (b"images", "not bytes"),
        (iter([]), "not list_iterator"),
        (Stream(), "Stream"),
        (torch.utils.data.DataLoader(Items(fails(ValueError()))), "not DataLoader; pass its .dataset"),
        (NoLength(photo), "has no length: NotImplementedError"),
        (Items(photo, 0), "the data set is empty"),
        ([], "the data set is empty"),
        (Items(photo), "item 0 of the data set is of type Image; needed: an .input, target. pair"),
        (Items(lambda i: {"image": photo(i), "fine_label": 0}), "a dict with the keys 'image', 'fine_label'; needed"),
        (Items(lambda i: {"image": photo(i), "img": photo(i), "label": 0}), "a dict with the keys 'image', 'img', 'la"),
        (Items(lambda i: {"image": photo(i), "label": 0, "labels": 1}), "is a dict with the keys"),
        (Items(lambda i: {"image": None, "label": 0}), "item 0 of the data set: NoneType is not an array"),
        (Items(lambda i: {}), "item 0 of the data set is a dict with"),
        (Items(lambda i: (photo(i),)), "has 1 parts .Image.; needed: an"),
        (Items(lambda i: (i, photo(i), 0)), "item 0 of the data set: the input is a single number"),
        (Items(lambda i: None), "is of type NoneType"),
        (PIXELS, "item 0 of the data set is of type ndarray"),
        (Items(fails(KeyError("x"))), "item 17 of the data set cannot be read: KeyError: 'x'"),
        (Items(fails(SystemExit(3))), "item 17 of the data set cannot be read: SystemExit: 3"),
        (Items(fails(IndexError())), "item 17 of the data set cannot be read: IndexError"),
        (Items(fails(MemoryError())), "images of 8x8 pixels"),
        (Items(lambda i: (photo(i), 0) if i else photo(i).load()[99, 99]), "item 0 .* cannot be read: IndexError"),
        (Items(lambda i: (Strange(), 0)), "item 0 .* cannot be read: RuntimeError: boom"),
        (Items(lambda i: ("x.png", 0)), "item 0 of the data set: "),
        (Items(lambda i: (np.zeros((0, 8)), 0)), r"have the shape \(40, 0, 8\)"),
        (Items(lambda i: (np.full((8, 8), 0.5 + 7 * (i > 9)), 0)), r"item 10 .*needed: uint8, or floats in \[0, 1\]"),
        (
            Items(lambda i: (torch.randn(3, 8, 8 + i % 2), 0)),
            r"item 1 .* shape \(3, 8, 9\), that of item 0 \(3, 8, 8\)",
        ),
        (Items(lambda i: (np.zeros((8, 8), complex), 0)), "complex"),
        (Items(lambda i: (Image.new("I;16", (8, 8)), 0)), "more than 8 bits"),
        (Items(lambda i: (Image.new("LAB", (8, 8)), 0)), "LAB"),
        (Items(lambda i: (photo(i), "cat")), "has 1 class;"),
        (Items(lambda i: (photo(i), 1.5)), "the label is 1.5"),
        (Items(lambda i: (photo(i), np.eye(4)[i % 4])), "the label is array"),
        (Items(lambda i: (photo(i), None)), "the label is None"),
        (Items(lambda i: (photo(i), Strange())), "the label is"),
        (Items(lambda i: (photo(i), -1)), "the label is -1"),
        (Items(lambda i: (photo(i), 10**30)), "the label is 10"),
        (Items(lambda i: (photo(i), 10**9 * (i % 2))), "label 1000000000 is above the number of examples"),
        (Items(lambda i: (photo(i), 2 * (i % 2))), "class '1' has 0 images"),
        (Items(lambda i: (np.zeros((300, 300)), 0), 10**9), "needs .* GiB of disk"),
        ((Items(photo), Items(photo)), "item 0 of the data set is of type Image"),
        ((PIXELS, LABELS[:30]), "needed: 40, one per example"),
        ((PIXELS, LABELS.astype(float)), "labels are float64"),
        ((np.full((40, 8, 8), 7.5), LABELS), "every value of all training examples is 7.5"),
        ((np.where(np.arange(40)[:, None] == 7, np.nan, 1.0), LABELS), "example . has values that are nan"),
        ((PIXELS, LABELS - 1), "label -1 is negative"),
        (([[1], [1, 2]], LABELS), "not an array"),
        ((np.full((40, 8, 8), "x"), LABELS), "inputs are <U1"),
        ((PIXELS, LABELS, PIXELS[:, :5], LABELS), "test images"),
        ((PIXELS[:0], LABELS[:0]), "needed: 0, one per example"),
    ],
)
def test_what_is_no_data_set(data: object, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said) as caught:
        load_dataset(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
