"""Augmentation of training batches: random shifts and mirror images, and functions of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.names import load_function

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

SHIFTS = ("shift", "shift-flip")
NAMED = ("none", *SHIFTS, "auto")


class Augmentation:
    """What is done to the inputs of a training batch.

    Args:
        text: one of "none", "shift", "shift-flip" and "auto", or ``path/to/file.py:function`` for a function of a
            normalized batch (N, ...) float32 and a ``torch.Generator`` that returns a batch of that shape; or several
            of these, joined by ``+``.
        data: what is trained on; gives what "auto" is.

    Raises:
        SlimsearchError: there is no such augmentation or function, or it is not for such data.
    """

    def __init__(self, text: str, data: Dataset) -> None:
        check_augmentation(text)
        steps = [data.augmentation if step == "auto" else step for step in text.split("+")]
        steps = [step for step in steps if step != "none"]
        allowed = data.task.augmentations if data.train.inputs.ndim == 4 else ()
        if odd := next((step for step in steps if step in SHIFTS and step not in allowed), None):
            raise SlimsearchError(
                f"augmentation '{odd}' is for images, and for tasks whose targets it keeps, not for {data.task.name}"
            )
        self._shift = next((step for step in steps if step in SHIFTS), None)
        self._functions = {step: _function(step) for step in steps if step not in SHIFTS}

    @property
    def is_none(self) -> bool:
        """Whether inputs stay as they are."""
        return self._shift is None and not self._functions

    def shifted(self, inputs: Array, rng: np.random.Generator) -> Array:
        """Inputs as they are stored, (N, C, H, W) if they are shifted."""
        return inputs if self._shift is None else _shift(inputs, rng, flip=self._shift == "shift-flip")

    def changed(self, batch: Tensor, rng: np.random.Generator) -> Tensor:
        """The normalized batch after the functions of the user's.

        Raises:
            SlimsearchError: one raises an exception, or returns anything else than such a batch.
        """
        import torch

        for name, function in self._functions.items():
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            with described(f"augmentation '{name}'"):
                found = function(batch, generator)
            if not isinstance(found, torch.Tensor) or found.shape != batch.shape or found.dtype != batch.dtype:
                given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
                raise SlimsearchError(
                    f"augmentation '{name}' returns {given}; needed: a float32 tensor {tuple(batch.shape)}, as it gets"
                )
            batch = found
        return batch


def check_augmentation(text: str) -> None:
    """Check the form of an augmentation.

    Raises:
        SlimsearchError: it has another one.
    """
    steps = text.split("+")
    odd = next((step for step in steps if step not in NAMED and ":" not in step), None)
    if odd is not None:
        raise SlimsearchError(f"augmentation '{odd}' is unknown; known: {', '.join(NAMED)}, path/to/file.py:function")
    if sum(step in NAMED for step in steps) > 1:
        raise SlimsearchError(f"augmentation '{text}' has several of {', '.join(NAMED)}; needed: one, and functions")


def _function(name: str) -> Callable[[Tensor, Any], Tensor]:
    found: Callable[[Tensor, Any], Tensor] = load_function("augmentation", name)
    if not callable(found):
        raise SlimsearchError(f"augmentation '{name}' is not a function")
    return found


def _shift(images: Array, rng: np.random.Generator, *, flip: bool) -> Array:
    """Shift each image at random, repeating its border; with `flip`, also mirror half of the images.

    Shifts by up to 1/14 of the side, or 1/8 with `flip` (He et al. 2016 for CIFAR-10).
    """
    count, _, height, width = images.shape
    reach = max(1, height // (8 if flip else 14))
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    rows = rng.integers(0, 2 * reach + 1, count)[:, None] + np.arange(height)  # (N, H)
    columns = rng.integers(0, 2 * reach + 1, count)[:, None] + np.arange(width)  # (N, W)
    if flip:
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored][:, ::-1]
    picks = np.arange(count)[:, None, None]
    # The advanced indices around the slice put it last: (N, H, W, C).
    return padded[picks, :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
