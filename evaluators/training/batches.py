"""Training batches: augmented and normalized on the device, where the training split stays if it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training.augmentation import Augmentation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_SHARE = 1 / 16  # of a GPU's free memory for the training split: several workers hold one each
_COPIED = 4096  # examples that are read from disk at a time


class TrainingBatches:
    """Batches of the training split.

    Args:
        data: the data set.
        augment: of the batches.
        device: of the batches. A GPU holds the whole split, as it is stored, where that takes little of its free
            memory.
        layout: of batches of images.
    """

    def __init__(self, data: Dataset, augment: Augmentation, device: torch.device, layout: torch.memory_format) -> None:
        self._train, self._augment, self._device, self._layout = data.train, augment, device, layout
        self._held = None if device.type == "cpu" else _held(data, device)

    def __call__(self, chosen: np.ndarray[tuple[int], np.dtype[np.int64]], rng: np.random.Generator) -> tuple[
        Tensor, Tensor
    ]:  # fmt: skip
        """Augmented, normalized inputs (N, ...) float32 and their targets.

        Args:
            chosen: (N,) indices of the examples.
            rng: of the augmentation.
        """
        import torch

        if self._held is not None:
            where = torch.from_numpy(chosen).to(self._device)
            inputs, targets = (values[where] for values in self._held)
        else:
            inputs = torch.from_numpy(self._train.inputs[chosen]).to(self._device)
            targets = torch.from_numpy(self._train.targets[chosen]).to(self._device)
        inputs, targets = self._augment(inputs, targets, rng)
        return inputs.to(memory_format=self._layout), targets


def _held(data: Dataset, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The inputs and targets of the training split on a GPU, or None if they take too much of its memory."""
    import torch

    inputs, targets = data.train.inputs, data.train.targets
    size = int(np.prod(inputs.shape)) * inputs.dtype.itemsize + targets.nbytes
    if size > _SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    parts = range(0, len(targets), _COPIED)
    copied = [torch.from_numpy(np.array(inputs[start : start + _COPIED])).to(device) for start in parts]
    return torch.cat(copied), torch.from_numpy(np.array(targets)).to(device)
