"""Random transforms of whole training batches, each seeded, on the device of the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_NOISE = 0.1  # standard deviation; that of normalized inputs is 1
_LONGEST_MASK = 0.25  # of a signal
_TOGETHER = 8  # images with the same operations of RandAugment: torchvision draws once for each call
_ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # of the Beta distribution, as in torchvision's training recipes


def shift(count: int, size: Sequence[int], rng: np.random.Generator, *, flip: bool) -> Callable[[Tensor], Tensor]:
    """A random shift of each example that repeats its border; with `flip`, half of the images are mirrored too.

    By up to 1/14 of an image's height, or 1/8 with `flip` (He et al. 2016 for CIFAR-10) and for signals.

    Args:
        count: examples.
        size: (H, W) of images or (L,) of signals.
        rng: draws the shifts.
        flip: mirror images.

    Returns:
        A function of tensors (N, C, *size), which it moves alike.
    """
    import torch

    height, width = size if len(size) == 2 else (1, size[0])
    reach = max(1, size[0] // (8 if flip or len(size) == 1 else 14))
    rows = np.arange(height)[None]
    if len(size) == 2:
        rows = (rng.integers(0, 2 * reach + 1, count)[:, None] + rows - reach).clip(0, height - 1)  # (N, H)
    columns = (rng.integers(0, 2 * reach + 1, count)[:, None] + np.arange(width) - reach).clip(0, width - 1)  # (N, W)
    if flip:
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored][:, ::-1]
    pixels = (np.arange(count)[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]  # (N, H, W)
    chosen = torch.from_numpy(pixels.reshape(-1))

    def moved(batch: Tensor) -> Tensor:
        channels = batch.shape[1]
        last = batch.reshape(count, channels, -1).transpose(1, 2).reshape(-1, channels)  # (N * H * W, C)
        picked = last[chosen.to(batch.device)].view(count, height, width, channels).permute(0, 3, 1, 2)
        return picked if len(size) == 2 else picked[:, :, 0]

    return moved


def randaugment(images: Tensor, seed: int, fill: Sequence[float]) -> Tensor:
    """RandAugment of (N, 1 or 3, H, W) uint8 images: 2 operations of magnitude 9, drawn for every 8 images.

    Source: Cubuk et al. 2020, by `torchvision.transforms.v2.RandAugment`. Difference: images share operations.

    Args:
        images: (N, C, H, W) uint8.
        seed: of the operations.
        fill: value of each channel outside of the image.
    """
    import torch
    from torchvision.transforms.v2 import RandAugment

    changed = RandAugment(fill=list(fill))
    with _seeded(seed):
        return torch.cat([changed(some.contiguous()) for some in torch.split(images, _TOGETHER)])


def cutout(batch: Tensor, seed: int) -> Tensor:
    """(N, C, H, W) with a square of half the shorter side at 0, the mean; its center is anywhere in the image.

    Source: DeVries and Taylor 2017. `torchvision.transforms.v2.RandomErasing` erases all images of a batch alike.
    """
    height, width = batch.shape[2:]
    side, rng = max(1, min(height, width) // 2), np.random.default_rng(seed)
    rows = _span(rng.integers(0, height, len(batch)) - side // 2, side, height)  # (N, H)
    columns = _span(rng.integers(0, width, len(batch)) - side // 2, side, width)  # (N, W)
    return _erased(batch, rows[:, None, :, None] & columns[:, None, None, :])


def mask(batch: Tensor, seed: int) -> Tensor:
    """(N, C, L) with a random span of up to a quarter of each signal at 0, the mean.

    Source: the time masks of SpecAugment, Park et al. 2019.
    """
    length, rng = batch.shape[2], np.random.default_rng(seed)
    spans = rng.integers(0, max(1, int(_LONGEST_MASK * length)) + 1, len(batch))
    starts = rng.integers(0, length - spans + 1)
    return _erased(batch, _span(starts, spans[:, None], length)[:, None])


def noise(batch: Tensor, seed: int) -> Tensor:
    """The normalized batch with Gaussian noise of a standard deviation of 0.1."""
    import torch

    drawn = torch.randn(batch.shape, generator=torch.Generator().manual_seed(seed))  # on each device the same
    return batch + _NOISE * drawn.to(batch.device)


def mixed(names: Sequence[str], batch: Tensor, targets: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Each example mixed with another one, and its targets in the same proportion.

    Source: mixup, Zhang et al. 2018; CutMix, Yun et al. 2019; by `torchvision.transforms.v2`, in random order.

    Args:
        names: "mixup" and "cutmix": one of these, drawn for each batch.
        batch: (N, ...) float32.
        targets: (N,) int64 of classes, which become shares (N, classes), or (N, ...) float32.
        classes: number of classes.
        seed: of the pairs and proportions.
    """
    import torch
    from torchvision.transforms.v2 import CutMix, MixUp

    rng = np.random.default_rng(seed)
    name = names[int(rng.integers(len(names)))]
    mixes = {"mixup": MixUp, "cutmix": CutMix}[name](
        alpha=_ALPHA[name], num_classes=None if targets.is_floating_point() else classes
    )
    # Neighbors are mixed, and those of an ordered data set are of the same class.
    order = torch.from_numpy(rng.permutation(len(batch))).to(batch.device)
    inputs, labels = batch[order], targets[order]
    images = inputs if inputs.ndim == 4 else inputs.reshape(len(inputs), inputs.shape[1], -1, 1)
    if labels.is_floating_point():
        labels = labels.flatten(1) if labels.ndim > 1 else labels[:, None]
    with _seeded(seed):
        images, labels = mixes(images, labels)
    return images.reshape(batch.shape), labels.reshape(targets.shape) if targets.is_floating_point() else labels


def _span(starts: Any, lengths: Any, total: int) -> Any:
    """(N, total) bool: True from each start on."""
    offsets = np.arange(total) - np.asarray(starts)[:, None]
    return (offsets >= 0) & (offsets < lengths)


def _erased(batch: Tensor, where: Any) -> Tensor:
    import torch

    return batch.masked_fill(torch.from_numpy(where).to(batch.device), 0.0)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A context in which PyTorch's generator of the CPU, from which torchvision draws, begins with `seed`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
