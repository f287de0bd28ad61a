"""Small stand-ins for MNIST and CIFAR-10, made from the digits of mnist5k: for ``--quick``."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from slimsearch.evaluators.datasets import Split, load_dataset

_SIDE, _TRAIN, _TEST = 32, 60, 20


def quick_mnist(folder: Path) -> Path:
    """A folder that ``torchvision.datasets.MNIST`` reads, with the digits of mnist5k."""
    data = load_dataset("mnist5k")
    assert data.test is not None
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", data.train), ("t10k", data.test)):
        images = np.asarray(split.inputs, dtype=np.uint8)[:, 0]
        # The header of the format: two zeros, the type (8: unsigned bytes), and the dimensions.
        header = struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">BBBBI", 0, 0, 8, 1, len(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + np.asarray(split.targets, dtype=np.uint8).tobytes())
    return folder


def quick_cifar10(folder: Path) -> Path:
    """An image folder of ten classes with pictures of CIFAR-10's size in color: enlarged digits of mnist5k."""
    data = load_dataset("mnist5k")
    assert data.test is not None
    for name, split, count in (("train", data.train, _TRAIN), ("test", data.test, _TEST)):
        _write(split, folder / name, count)
    return folder


def _write(split: Split, folder: Path, count: int) -> None:
    for label in range(10):
        into = folder / str(label)
        into.mkdir(parents=True, exist_ok=True)
        for place in np.flatnonzero(np.asarray(split.targets) == label)[:count]:
            image = Image.fromarray(np.asarray(split.inputs[place][0], dtype=np.uint8))
            image.convert("RGB").resize((_SIDE, _SIDE)).save(into / f"{place:05d}.png")
