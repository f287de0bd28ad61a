"""How differently the network's units fire for different images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimsearch.evaluators.scores._score import scoring_copy

if TYPE_CHECKING:
    from torch import Tensor, nn

_ACTIVATIONS = {
    "relu", "leaky_relu", "_prelu_kernel", "rrelu_with_noise", "threshold", "elu", "gelu", "silu", "mish", "hardswish",
    "hardtanh", "tanh", "sigmoid", "hardsigmoid", "softplus",
}  # fmt: skip


class Naswot:
    """Log-determinant of the kernel that counts in how many units two images agree.

    A unit's code is 1 where the input of its activation is above 0. Every activation counts, ReLU or another, module
    or function: what PyTorch executes is looked at, not how the network is written. BatchNorm normalises by the batch.

    Source: Mellor et al. 2021, "Neural architecture search without training", whose networks have only ReLU, as a
    module. What differs: other activations, for which 0 is the middle rather than the edge of a linear region.
    """

    def score(self, module: nn.Module, images: Tensor, labels: Tensor) -> float:
        copied = scoring_copy(module)
        codes = _Codes(len(images))
        # With gradients, else PyTorch runs a transformer's layer as one operation, activation included.
        with torch.enable_grad(), codes:
            copied(images)
        return float(torch.linalg.slogdet(codes.kernel).logabsdet)


class _Codes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the kernels of all activations that are executed in its context.

    Attributes:
        kernel: (count, count) float64, `count` the images in the batch.
    """

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = count
        self.kernel = torch.zeros(count, count, dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.removesuffix("_") in _ACTIVATIONS:
            self._add(args[0])  # before it runs: it may do so in place
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: Tensor) -> None:
        if inputs.ndim == 0 or inputs.shape[0] % self._count:
            return  # computed from weights, not from images
        code = (inputs.detach() > 0).reshape(self._count, -1).float()  # (N, units), or (N, windows * units)
        self.kernel += (code @ code.T + (1 - code) @ (1 - code).T).double().cpu()
