"""A file or a network as the callable that a user's score function gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]

_BATCH = 256


class OutputsModule(nn.Module):
    """A module from inputs (N, ...) to outputs (N, ...): of a tensor a tensor, of an array an array; without gradients.

    It has no parameters, and takes the place of a network in code that evaluates one: ``to`` and ``eval`` do nothing.

    Args:
        predict: (N, ...) float32 -> (N, ...); called with batches.
    """

    def __init__(self, predict: Callable[[Array], Array]) -> None:
        super().__init__()
        self._predict = predict

    def forward(self, inputs: Any) -> Any:
        if not isinstance(inputs, torch.Tensor):
            return self._of(np.asarray(inputs, dtype=np.float32))
        outputs = self._of(inputs.detach().cpu().float().numpy())
        return torch.from_numpy(outputs).to(inputs.device)

    def _of(self, inputs: Array) -> Array:
        parts = [self._predict(inputs[start : start + _BATCH]) for start in range(0, max(1, len(inputs)), _BATCH)]
        return np.concatenate(parts)
