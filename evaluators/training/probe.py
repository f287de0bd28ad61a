"""The first step of a training, tried on two examples: a network's mistakes in one line, and its memory layout."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slimsearch.compression import Network, layout_for, set_layout
from slimsearch.errors import SlimsearchError, described
from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.training.cpu_speedups import keep_channels_last
from slimsearch.evaluators.training.hardware import autocast

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_log = logging.getLogger(__name__)

_EXAMPLES = 2
_LARGER_BATCH = 64


class TrainingProbe:
    """Tries a network on training examples, each time with a copy of it; random generators keep their state.

    Args:
        network: on `device`.
        data: the data set.
        device: "cpu" or "cuda".
    """

    def __init__(self, network: Network, data: Dataset, device: str = "cpu") -> None:
        self._network, self._data, self._device = network, data, device
        self._inputs, self._targets = self._batch(_EXAMPLES)

    def check_outputs(self) -> None:
        """Check that the network gives outputs in evaluation mode.

        Raises:
            SlimsearchError: it fails, or does not give a tensor of the task's shape without nan.
        """
        import torch

        module = self._network.copy_module().eval()
        with (
            described(f"the network fails on {self._described()}"),
            torch.random.fork_rng(self._devices),
            torch.no_grad(),
        ):
            outputs = module(self._inputs)
        self._check(outputs, "")
        if not _is_finite(outputs):
            tensors = (*module.named_parameters(), *module.named_buffers())
            bad = next((f": '{name}' is not finite" for name, t in tensors if not bool(torch.isfinite(t).all())), "")
            raise SlimsearchError(f"the network gives nan or infinity for training {self._kind}{bad}")

    def check_training(self) -> None:
        """Check that the network can be trained.

        Raises:
            SlimsearchError: as for `check_outputs`; or nothing depends on a trainable parameter, or a training step
                fails or is not finite.
        """
        import torch

        self.check_outputs()
        if not any(parameter.requires_grad for parameter in self._network.module.parameters()):
            raise SlimsearchError("the network has nothing to train: no parameter has requires_grad=True")
        # The variance of two examples can be 0 where that of more is not.
        for inputs, targets in ((self._inputs, self._targets), self._batch(_LARGER_BATCH)):
            with described(f"the network fails in training mode on {self._described()}"):
                outputs, gradients = self._step(inputs, targets, torch.contiguous_format, training=True)
            bad = [f"the gradient of '{name}'" for name, gradient in gradients.items() if not _is_finite(gradient)]
            bad = bad if _is_finite(outputs) else ["a logit" if self._data.task.gives_logits else "an output"]
            if not bad:
                return
        raise SlimsearchError(f"the network cannot be trained: {bad[0]} is nan or infinity in the first step")

    def layout(self) -> torch.memory_format:
        """The faster memory layout in which the network, which can be trained, gives equal logits and gradients."""
        import torch

        def run(layout: torch.memory_format) -> list[Tensor]:
            if layout == torch.channels_last:
                self._step(self._inputs, self._targets, layout, training=True)
            # Compared in evaluation mode, without dropout, whose masks depend on the layout.
            logits, gradients = self._step(self._inputs, self._targets, layout, training=False)
            return [logits, *gradients.values()]

        return layout_for(run)

    def runs_in(self, precision: str, layout: torch.memory_format) -> bool:
        """Whether a training step works in `precision`: custom autograd functions may not."""
        try:
            logits, gradients = self._step(self._inputs, self._targets, layout, training=True, precision=precision)
        except (Exception, SystemExit):  # a user's module may raise anything
            return False
        return all(map(_is_finite, (logits, *gradients.values())))

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        import torch

        train = self._data.train
        inputs = self._data.normalise(train.inputs[:size]).contiguous()
        return inputs.to(self._device), torch.from_numpy(train.targets[:size]).to(self._device)

    def _step(
        self, inputs: Tensor, targets: Tensor, layout: torch.memory_format, *, training: bool, precision: str = "fp32"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs, and gradients by parameter name; in training mode, the weights are updated too."""
        import torch

        module = self._network.copy_module().train(training)
        set_layout(module, layout)
        if layout == torch.channels_last and self._device == "cpu":
            keep_channels_last(module)
        with torch.random.fork_rng(self._devices):
            with autocast(precision, self._device):
                outputs = module(inputs.to(memory_format=layout))
                logits = first_output(outputs)
                self._check(logits, " in training mode" if training else "", len(inputs))
                loss = self._data.task.loss(logits.float(), targets)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            elif training:
                raise SlimsearchError(
                    "the network has nothing to train: its logits depend on no parameter with requires_grad=True (they "
                    "come from torch.no_grad() or detach())"
                )
        if logits is not outputs and layout == torch.contiguous_format:
            _log.warning(
                "the network gives a %s in training mode: its logits are trained, and nothing else in it",
                type(outputs).__name__,
            )
        gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        if training:
            torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], fused=True).step()
        return logits.detach(), gradients

    def _check(self, outputs: Any, mode: str, count: int = _EXAMPLES) -> None:
        import torch

        data = self._data
        names, count = len(data.classes), min(count, len(data.train))
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        wanted = data.task.output_shape(names, data.input_shape)
        expected = (count, *wanted) if wanted is not None else None
        what = "logits" if data.task.gives_logits else "its outputs"
        if found != expected and (expected is not None or not isinstance(outputs, torch.Tensor)):
            known = f"{names} classes" if data.task.gives_logits else f"the targets of --task {data.task.name}"
            raise SlimsearchError(
                f"the network gives {found} for {count} {self._kind}{mode}; the data set has {known}: forward must "
                f"return {what}, a tensor{'' if expected is None else f' {expected}'}"
            )
        if not outputs.is_floating_point() or outputs.layout != torch.strided:
            kind = str(outputs.dtype if outputs.layout == torch.strided else outputs.layout).removeprefix("torch.")
            raise SlimsearchError(
                f"the network gives a tensor of {kind}{mode}: forward must return {what}, dense and of floating-point "
                "numbers"
            )

    @property
    def _kind(self) -> str:
        return "images" if len(self._data.input_shape) == 3 else "examples"

    def _described(self) -> str:
        shape = "x".join(map(str, self._data.input_shape))
        return f"{len(self._inputs)} {self._kind} of {shape}, float32, its only argument"

    @property
    def _devices(self) -> list[str]:
        return [self._device] if self._device == "cuda" else []


def first_output(outputs: Any) -> Any:
    """The logits of a network that in training mode gives more, such as those of auxiliary heads."""
    if isinstance(outputs, Mapping):
        return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()), None)
    return outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs


def _is_finite(tensor: Tensor) -> bool:
    """Whether no number is nan or infinity; minus infinity can mask a class."""
    return bool((tensor < math.inf).all())
