"""A module in training with its optimizer, which a callback can exchange for a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.compression import AfterStep, LossTerm, set_layout
from slimsearch.evaluators.training.cpu_speedups import depthwise_in_float32, keep_channels_last, speed_up_dropout
from slimsearch.evaluators.training.norm_statistics import follow_training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class ModuleInTraining:
    """A module that is trained by AdamW, with the speed-ups of its training.

    Args:
        module: on the device and in the memory layout of the training, in training mode.
        weight_decay: of weights with more than one dimension.
        layout: memory layout.
        steps: of the training.
        losses: terms of the loss besides that of the task; they are attached here, and their parameters trained.
        after_step: callbacks, which are attached here.

    Attributes:
        module, optimizer: the current ones.
    """

    def __init__(
        self, module: nn.Module, weight_decay: float, layout: torch.memory_format, steps: int,
        losses: Sequence[LossTerm], after_step: Sequence[AfterStep],
    ) -> None:  # fmt: skip
        self.module = module
        self._weight_decay, self._layout, self._steps = weight_decay, layout, steps
        self._others = [parameter for term in losses for parameter in term.attach(module)]
        for callback in after_step:
            callback.attach(module)
        # Other callbacks, and loss terms that look into the module, may have kept parts of it.
        looks = any(type(term).attach is not LossTerm.attach for term in losses)
        self._shrinking = after_step[0] if len(after_step) == 1 and not looks else None
        self._undo: list[Callable[[], None]] = []
        self._speed_up()
        self.optimizer = self._new_optimizer()

    def shrink(self) -> None:
        """Exchange the module if the callback has set weights to zero for the rest of the training.

        What remains is trained as it would have been: with the same gradients and averages of the optimizer.
        """
        if self._shrinking is None or not self._shrinking.has_finished():
            return
        self.undo()
        device = next(self.module.parameters()).device
        exchanged = self._shrinking.smaller(self.module)
        if exchanged is not None:
            before, optimizer = dict(self.module.named_parameters()), self.optimizer
            self.module, removed = exchanged
            set_layout(self.module.to(device).train(), self._layout)
            self.optimizer = self._new_optimizer()
            for name, parameter in self.module.named_parameters():
                self.optimizer.state[parameter] = _remaining(
                    optimizer.state.get(before[name], {}), removed.get(name), before[name], parameter
                )
        self._speed_up()

    def whole(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Module and optimizer, to go back to by `become`."""
        return self.module, self.optimizer

    def become(self, whole: tuple[nn.Module, torch.optim.Optimizer]) -> None:
        """Go back to what `whole` gave."""
        self.undo()
        self.module, self.optimizer = whole
        self._speed_up()

    def undo(self) -> None:
        """Undo what speeds up the training; called after it."""
        for undo in self._undo:
            undo()

    def _speed_up(self) -> None:
        import torch

        self._undo = [follow_training(self.module, self._steps)]
        if next((p.device.type for p in self.module.parameters()), "cpu") == "cpu":
            from slimsearch.evaluators.training.batch_norm import speed_up_batch_norm

            self._undo += [
                speed_up(self.module) for speed_up in (speed_up_dropout, speed_up_batch_norm, depthwise_in_float32)
            ]
            if self._layout == torch.channels_last:
                self._undo.append(keep_channels_last(self.module))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        import torch

        groups = parameter_groups([*self.module.parameters(), *self._others], self._weight_decay)
        return torch.optim.AdamW(groups, fused=True)


def parameter_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups: no weight decay for biases and for parameters of normalization and quantization."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _remaining(
    state: Mapping[str, Any], removed: Tensor | None, before: nn.Parameter, after: nn.Parameter
) -> dict[str, Any]:
    """The optimizer's state of what remains of a parameter; empty if it is unknown which values remain."""
    import torch

    if removed is None and before.shape != after.shape:
        return {}
    kept = None if removed is None else ~removed.to(before.device).expand(before.shape)
    if kept is not None and int(kept.sum()) != after.numel():
        return {}
    found = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape == before.shape and before.ndim:
            own = value if kept is None else value[kept].view(after.shape)
            found[name] = torch.empty_like(after, requires_grad=False).copy_(own)
        else:
            found[name] = value
    return found
