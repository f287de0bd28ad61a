"""The first step of a training, tried on two images: a network's mistakes in one line, and its memory layout."""

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

_IMAGES = 2
_LARGER_BATCH = 64


class TrainingProbe:
    """Tries a network on training images, each time with a copy of it; random generators keep their state.

    Args:
        network: on `device`.
        data: the data set.
        device: "cpu" or "cuda".
    """

    def __init__(self, network: Network, data: Dataset, device: str = "cpu") -> None:
        self._network, self._data, self._device = network, data, device
        self._images, self._labels = self._batch(_IMAGES)

    def check_outputs(self) -> None:
        """Check that the network gives logits in evaluation mode.

        Raises:
            SlimsearchError: it fails, or does not give a tensor (N, num_classes) without nan.
        """
        import torch

        module = self._network.copy_module().eval()
        with (
            described(f"the network fails on {self._described()}"),
            torch.random.fork_rng(self._devices),
            torch.no_grad(),
        ):
            logits = module(self._images)
        self._check_logits(logits, "")
        if not _is_finite(logits):
            tensors = (*module.named_parameters(), *module.named_buffers())
            bad = next((f": '{name}' is not finite" for name, t in tensors if not bool(torch.isfinite(t).all())), "")
            raise SlimsearchError(f"the network gives nan or infinity for training images{bad}")

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
        # The variance of two images can be 0 where that of more is not.
        for images, labels in ((self._images, self._labels), self._batch(_LARGER_BATCH)):
            with described(f"the network fails in training mode on {self._described()}"):
                logits, gradients = self._step(images, labels, torch.contiguous_format, training=True)
            bad = [f"the gradient of '{name}'" for name, gradient in gradients.items() if not _is_finite(gradient)]
            bad = bad if _is_finite(logits) else ["a logit"]
            if not bad:
                return
        raise SlimsearchError(f"the network cannot be trained: {bad[0]} is nan or infinity in the first step")

    def layout(self) -> torch.memory_format:
        """The faster memory layout in which the network, which can be trained, gives equal logits and gradients."""
        import torch

        def run(layout: torch.memory_format) -> list[Tensor]:
            if layout == torch.channels_last:
                self._step(self._images, self._labels, layout, training=True)
            # Compared in evaluation mode, without dropout, whose masks depend on the layout.
            logits, gradients = self._step(self._images, self._labels, layout, training=False)
            return [logits, *gradients.values()]

        return layout_for(run)

    def runs_in(self, precision: str, layout: torch.memory_format) -> bool:
        """Whether a training step works in `precision`: custom autograd functions may not."""
        try:
            logits, gradients = self._step(self._images, self._labels, layout, training=True, precision=precision)
        except (Exception, SystemExit):  # a user's module may raise anything
            return False
        return all(map(_is_finite, (logits, *gradients.values())))

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        import torch

        train = self._data.train
        images = self._data.normalise(train.images[:size]).contiguous()
        return images.to(self._device), torch.from_numpy(train.labels[:size]).to(self._device)

    def _step(
        self, images: Tensor, labels: Tensor, layout: torch.memory_format, *, training: bool, precision: str = "fp32"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and gradients by parameter name; in training mode, the weights are updated too."""
        import torch
        import torch.nn.functional as F

        module = self._network.copy_module().train(training)
        set_layout(module, layout)
        if layout == torch.channels_last and self._device == "cpu":
            keep_channels_last(module)
        with torch.random.fork_rng(self._devices):
            with autocast(precision, self._device):
                outputs = module(images.to(memory_format=layout))
                logits = first_output(outputs)
                self._check_logits(logits, " in training mode" if training else "", len(images))
                loss = F.cross_entropy(logits.float(), labels)
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

    def _check_logits(self, logits: Any, mode: str, count: int = _IMAGES) -> None:
        import torch

        classes = len(self._data.classes)
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        count = min(count, len(self._data.train))
        if found != (count, classes):
            raise SlimsearchError(
                f"the network gives {found} for {count} images{mode}; the data set has {classes} classes: forward must "
                f"return logits, a tensor {(count, classes)}"
            )
        if not logits.is_floating_point() or logits.layout != torch.strided:
            kind = str(logits.dtype if logits.layout == torch.strided else logits.layout).removeprefix("torch.")
            raise SlimsearchError(
                f"the network gives a tensor of {kind}{mode}: forward must return logits, dense and of floating-point "
                "numbers"
            )

    def _described(self) -> str:
        return f"{len(self._images)} images of {'x'.join(map(str, self._data.input_shape))}, float32, its only argument"

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
