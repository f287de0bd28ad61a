"""Augmentation of training batches: named transforms, and functions of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training import transforms
from slimsearch.names import load_function

if TYPE_CHECKING:
    from torch import Tensor

_ALTERNATIVES = ("auto", "none", "shift", "shift-flip")
_TABLE, _SIGNAL, _IMAGE, _VOLUME = 2, 3, 4, 5  # dimensions of a batch
_KINDS = {
    "shift": (_IMAGE, _SIGNAL),
    "shift-flip": (_IMAGE,),
    "randaugment": (_IMAGE,),
    "cutout": (_IMAGE,),
    "mask": (_SIGNAL,),
    "noise": (_TABLE, _SIGNAL, _IMAGE, _VOLUME),
    "mixup": (_TABLE, _SIGNAL, _IMAGE, _VOLUME),
    "cutmix": (_IMAGE,),
}
_WORDS = {_TABLE: "tables", _SIGNAL: "signals", _IMAGE: "images", _VOLUME: "volumes"}
_MIXING = ("mixup", "cutmix")

NAMED = (*_ALTERNATIVES, *(name for name in _KINDS if name not in _ALTERNATIVES))
"""Names of augmentations."""


class Augmentation:
    """What is done to the inputs and targets of a training batch.

    Args:
        text: names of `NAMED` and ``path/to/file.py:function``, joined by ``+``: at most one of "auto", "none", "shift"
            and "shift-flip". "auto" is that of the data set if its task allows it. A function gets a normalized batch
            (N, ...) float32 on the CPU and a ``torch.Generator``, and returns a batch of that shape.
        data: what is trained on.

    Raises:
        SlimsearchError: there is no such augmentation or function, or it is not for such data or its task.
    """

    def __init__(self, text: str, data: Dataset) -> None:
        check_augmentation(text)
        automatic = data.augmentation if data.augmentation in data.task.augmentations else "none"
        steps = [automatic if step == "auto" else step for step in text.split("+")]
        steps = [step for step in steps if step != "none"]
        for step in steps:
            if step in _KINDS:
                _check(step, data)
        self._data = data
        self._shift = next((step for step in steps if step in _ALTERNATIVES), None)
        self._mixing = [step for step in steps if step in _MIXING]
        self._randaugment = "randaugment" in steps
        rest = [step for step in steps if step not in (*_ALTERNATIVES, *_MIXING, "randaugment")]
        self._rest = [getattr(transforms, step) if step in _KINDS else _of_user(step) for step in rest]

    @property
    def is_none(self) -> bool:
        """Whether inputs stay as they are."""
        return not (self._shift or self._mixing or self._randaugment or self._rest)

    def __call__(self, inputs: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The augmented, normalized batch and its targets.

        Args:
            inputs: (N, ...) as they are stored.
            targets: (N, ...); with mixup or cutmix, classes become shares (N, classes).
            rng: of all that is random.

        Raises:
            SlimsearchError: a function of the user's fails, or returns anything else than such a batch.
        """
        data = self._data
        if self._shift is not None:
            moved = transforms.shift(len(inputs), inputs.shape[2:], rng, flip=self._shift == "shift-flip")
            inputs = moved(inputs)
            targets = moved(targets[:, None])[:, 0] if data.task.targets_move else targets
        if self._randaugment:
            inputs = transforms.randaugment(inputs, _seed(rng), [round(255 * mean) for mean in data.mean])
        batch = data.normalised(inputs)
        for change in self._rest:
            batch = change(batch, _seed(rng))
        if self._mixing:
            batch, targets = transforms.mixed(self._mixing, batch, targets, len(data.classes), _seed(rng))
        return batch, targets


def check_augmentation(text: str) -> None:
    """Check the form of an augmentation.

    Raises:
        SlimsearchError: it has another one.
    """
    steps = text.split("+")
    odd = next((step for step in steps if step not in NAMED and ":" not in step), None)
    if odd is not None:
        raise SlimsearchError(f"augmentation '{odd}' is unknown; known: {', '.join(NAMED)}, path/to/file.py:function")
    if sum(step in _ALTERNATIVES for step in steps) > 1:
        raise SlimsearchError(f"augmentation '{text}' has several of {', '.join(_ALTERNATIVES)}; needed: one of these")
    if len(set(steps)) < len(steps):
        raise SlimsearchError(f"augmentation '{text}' has the same one twice")


def _check(name: str, data: Dataset) -> None:
    """Check that an augmentation is for such inputs, and that the task bears it."""
    inputs, task = data.train.inputs, data.task
    if inputs.ndim not in _KINDS[name]:
        kinds = " and ".join(_WORDS[kind] for kind in sorted(_KINDS[name], reverse=True))
        raise SlimsearchError(
            f"augmentation '{name}' is for {kinds}, and the inputs are {_WORDS.get(inputs.ndim, 'others')} "
            f"{data.input_shape}"
        )
    if name not in task.augmentations:
        raise SlimsearchError(
            f"--task {task.name} does not allow augmentation '{name}'; it allows {', '.join(task.augmentations)}"
        )
    if name == "randaugment" and (inputs.dtype != np.uint8 or inputs.shape[1] not in (1, 3)):
        raise SlimsearchError(
            f"augmentation 'randaugment' is for grey and RGB images of bytes, not {inputs.dtype} {data.input_shape}"
        )


def _of_user(name: str) -> Callable[[Tensor, int], Tensor]:
    """A function of the user's as one of a batch (N, ...) float32 and a seed."""
    function: Callable[[Tensor, Any], Tensor] = load_function("augmentation", name)
    if not callable(function):
        raise SlimsearchError(f"augmentation '{name}' is not a function")

    def change(batch: Tensor, seed: int) -> Tensor:
        import torch

        with described(f"augmentation '{name}'"):
            found = function(batch.cpu(), torch.Generator().manual_seed(seed))
        if not isinstance(found, torch.Tensor) or found.shape != batch.shape or found.dtype != batch.dtype:
            given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise SlimsearchError(
                f"augmentation '{name}' returns {given}; needed: a float32 tensor {tuple(batch.shape)}, as it gets"
            )
        return found.to(batch.device)

    return change


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
