"""Checkpoints of interrupted trainings: written after each epoch, removed when the training ends."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression import AfterStep, LossTerm
from slimsearch.errors import first_line
from slimsearch.evaluators.training.module_in_training import ModuleInTraining
from slimsearch.files import atomic

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_log = logging.getLogger(__name__)


class CheckpointFile:
    """A file of tensors and plain values, loaded without pickle.

    Args:
        path: of the file; None: nothing is written, and `read` finds nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        """The saved state; None if there is no file, or an unreadable one (which is logged)."""
        import torch

        if self.path is None or not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True)
            return dict(state)
        except Exception as error:  # torch and pickle raise many kinds
            self.reject(error)
            return None

    def reject(self, error: Exception) -> None:
        """Log that the file cannot be used."""
        _log.warning("'%s' cannot be read, the training starts again: %s", self.path, first_line(error))

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file."""
        import torch

        if self.path is not None:
            with atomic(self.path) as temporary:
                torch.save(dict(state), temporary)

    def remove(self) -> None:
        """Delete the file: the training has ended."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of PyTorch's generators in a training on `device`."""
    import torch

    found = {"random": torch.get_rng_state()}
    return found if device.type == "cpu" else {**found, "random_gpu": torch.cuda.get_rng_state(device)}


def restore_random(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` gave."""
    import torch

    torch.set_rng_state(state["random"])
    if "random_gpu" in state:
        torch.cuda.set_rng_state(state["random_gpu"])


class Checkpoint:
    """The state of one network's training: weights, optimizer, random generators, loss terms and callbacks.

    Args:
        trained: the module and its optimizer.
        order: generator of the order of the images and of their augmentation.
        stateful: loss terms and callbacks whose states belong to the checkpoint.
        path: of the file, for successive trainings of a candidate; None for none.
    """

    def __init__(
        self,
        trained: ModuleInTraining,
        order: np.random.Generator,
        stateful: Sequence[LossTerm | AfterStep],
        path: Path | None,
    ) -> None:
        self._trained, self._order, self._stateful = trained, order, stateful
        self._file = CheckpointFile(path)
        # Identifies the training: that of a later stage may have as many steps.
        self._start = "" if path is None else _digest(trained.module)

    def resume(self, steps: int) -> int:
        """Restore the saved state of a training of `steps` steps from the same weights.

        Returns:
            the epochs done; 0 for a new start.
        """
        state = self._file.read()
        if state is None or (state.get("steps"), state.get("start")) != (steps, self._start):
            return 0
        before, whole = copy.deepcopy(self._state()), self._trained.whole()
        try:
            epoch = int(state["epoch"])
            if epoch < 0:
                raise ValueError(f"epoch {epoch} is negative")
            self._restore(state)
        except Exception as error:  # a damaged state fails in any way
            self._file.reject(error)
            self._trained.become(whole)
            self._restore(before)
            return 0
        return epoch

    def save(self, epoch: int, steps: int) -> None:
        """Write the state after `epoch` of a training of `steps` steps."""
        if self._file.path is not None:
            self._file.write({"epoch": epoch, "steps": steps, "start": self._start, **self._state()})

    def remove(self) -> None:
        """Delete the file: the training has ended."""
        self._file.remove()

    def _state(self) -> dict[str, Any]:
        return {
            "module": self._trained.module.state_dict(),
            "optimizer": self._trained.optimizer.state_dict(),
            "order": self._order.bit_generator.state,
            "parts": [one.state() for one in self._stateful],
            **random_state(next(self._trained.module.parameters()).device),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        for one, saved in zip(self._stateful, state["parts"], strict=True):
            one.restore(saved)
        self._trained.shrink()
        self._trained.module.load_state_dict(state["module"])
        self._trained.optimizer.load_state_dict(state["optimizer"])
        self._order.bit_generator.state = state["order"]
        restore_random(state)


def _digest(module: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    import torch

    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
