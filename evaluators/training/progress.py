"""A training that can be interrupted: its state on disk after each epoch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import AfterStep, LossTerm
from slimsearch.errors import first_line
from slimsearch.files import atomic

if TYPE_CHECKING:
    import torch
    from torch import nn

_log = logging.getLogger(__name__)


class Progress:
    """A training's state on disk after each epoch: weights, optimizer, random numbers, and the state of `parts`."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        order: np.random.Generator,
        parts: Sequence[LossTerm | AfterStep],
        path: Path | None,
    ) -> None:
        self._module, self._optimizer, self._order, self._parts, self._path = module, optimizer, order, parts, path

    def resume(self, steps: int) -> int:
        """Epochs that were done before, 0 where there is nothing to go on from."""
        import torch

        if self._path is None or not self._path.is_file():
            return 0
        before = copy.deepcopy(self._state())
        try:
            state = torch.load(self._path, weights_only=True)
            if state["steps"] != steps:
                return 0
            epoch = int(state["epoch"])
            if epoch < 0:
                raise ValueError(f"it is of epoch {epoch}")
            self._restore(state)
        except Exception as error:  # torch and pickle each have their own
            _log.warning("'%s' cannot be read, the training starts again: %s", self._path, first_line(error))
            self._restore(before)
            return 0
        return epoch

    def save(self, epoch: int, steps: int) -> None:
        """After an epoch of a training of so many steps."""
        import torch

        if self._path is None:
            return
        with atomic(self._path) as temporary:
            torch.save({"epoch": epoch, "steps": steps, **self._state()}, temporary)

    def _state(self) -> dict[str, Any]:
        import torch

        return {
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "order": self._order.bit_generator.state,
            "parts": [part.state() for part in self._parts],
            "random": torch.get_rng_state(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        import torch

        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._order.bit_generator.state = state["order"]
        for part, kept in zip(self._parts, state["parts"], strict=True):
            part.restore(kept)
        torch.set_rng_state(state["random"])

    def remove(self) -> None:
        """The training is over."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
