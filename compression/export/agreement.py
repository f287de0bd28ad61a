"""Agreement of an exported file with its network, at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.compression.export.untrusted import onnxruntime_session
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Array = np.ndarray[Any, np.dtype[Any]]

EXACT = 1e-3
"""Largest allowed error of a logit of a float32 file, relative to the largest logit of the network."""

QUANTIZED = 0.3
"""Largest allowed root mean square error of the logits of a network with rounded weights, relative to the standard
deviation of the network's logits. A lost activation or a scale of the wrong channel exceeds it. Rounding can exceed it
in deep networks, where it adds up: that of activations is left out then, see `without_rounding`, and that of weights is
compared with the same in PyTorch.
"""
_OF_ROUNDING = 2.0  # allowed error, relative to that of the weights' rounding in PyTorch

EXAMPLE_IMAGES = 2
"""Images of the batch that exporters trace."""
_OTHER_SIZES = (1, 3)


class FixedBatchSize(SlimsearchError):
    """A file is right for the batch size of the exporter's example only."""

    def __init__(self) -> None:
        super().__init__(
            f"the file would be right for batches of {EXAMPLE_IMAGES} images only: forward uses the batch size as a "
            "Python number, as in len(x), int(x.shape[0]) or a loop over the images; use -1, x.shape[0] or x.flatten(1)"
        )


def exact_error(expected: Array, actual: Array) -> float:
    """Largest absolute difference of two networks' logits, relative to the largest logit; see `EXACT`."""
    import numpy as np

    return float(np.abs(actual - expected).max()) / max(1.0, float(np.abs(expected).max()))


def parity_error(
    expected: Array,
    actual: Array,
    *,
    quantized: bool,
    spread: float | None = None,
    bounded: bool = True,
    rounding: Callable[[], float] = lambda: 0.0,
) -> float:
    """`exact_error` of a file's outputs; root mean square error relative to `spread` for a quantized network.

    Args:
        expected: outputs of the network.
        actual: those of the file.
        quantized: whether the network rounds.
        spread: standard deviation of the network's outputs; by default of `expected`.
        bounded: False if the error may be of any size.
        rounding: gives the `rounding_error` of the network; it is called if the error is larger than in most networks.

    Raises:
        SlimsearchError: the error is larger than allowed.
    """
    import numpy as np

    if quantized:
        spread = float(expected.std()) if spread is None else spread
        error, allowed = float(np.sqrt(np.mean((actual - expected) ** 2))) / max(spread, 1e-9), QUANTIZED
    else:
        error, allowed = exact_error(expected, actual), EXACT
    if bounded and quantized and not error <= allowed:
        allowed = max(allowed, _OF_ROUNDING * rounding())
    if bounded and not error <= allowed:
        raise SlimsearchError(
            f"the exported file disagrees with the network: relative error of the logits {error:.3g}, "
            f"allowed {allowed:.3g}"
        )
    return error


def without_rounding(content: bytes) -> bytes:
    """The file with activations that are clipped to their ranges, but not rounded; the weights stay as they are.

    Args:
        content: an ONNX file, with QDQ operators if it has int8 arithmetic.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(content)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rounding = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        before = rounding.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is not None:
            scale, zero_point = (numpy_helper.to_array(constants[name]) for name in before.input[1:3])
            integers = np.iinfo(zero_point.dtype)
            # A ReLU may have become part of the range.
            limits = [f"{node.output[0]}.{integer}" for integer in (integers.min, integers.max)]
            for name, integer in zip(limits, (integers.min, integers.max), strict=True):
                limit = np.float32((integer - float(zero_point)) * float(scale))
                model.graph.initializer.append(numpy_helper.from_array(np.array(limit), name))
            node = helper.make_node("Clip", [before.input[0], *limits], [node.output[0]])
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found: bytes = model.SerializeToString()
    return found


def example_of(images: Tensor) -> Tensor:
    """The batch that exporters trace."""
    return _batch(images, 0, EXAMPLE_IMAGES)


def logits_of(module: nn.Module, images: Tensor) -> list[Array]:
    """The logits of `module`, in evaluation mode on the CPU, for the batches of `check_agreement`.

    Raises:
        SlimsearchError: it fails on a batch.
    """
    import torch

    found = []
    for batch in _batches(images):
        try:
            with torch.no_grad():
                found.append(module(batch).numpy())
        except Exception as error:  # a user's module may raise anything
            raise SlimsearchError(f"the network fails on a batch of {len(batch)}: {describe_error(error)}") from error
    return found


def check_agreement(
    content: bytes,
    images: Tensor,
    expected: Sequence[Array] | None,
    *,
    quantized: bool,
    rounding: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run a file in batches of the example's size and of others, and compare it with its module.

    Args:
        content: an ONNX file, run by ONNX Runtime.
        images: (N, C, H, W) float32.
        expected: `logits_of` the module; None: the file has only to give a row of logits for each image.
        quantized: whether the module rounds.
        rounding: as of `parity_error`.

    Raises:
        FixedBatchSize: the file is right in batches of the example's size only.
        SlimsearchError: file and module disagree.
    """
    import numpy as np

    run = onnxruntime_session(content, 1)
    # Of all batches together, since one image of a network with one output has no spread.
    every = np.concatenate([one.ravel() for one in expected]) if expected is not None else np.zeros(1)
    finite = every[np.isfinite(every)]
    spread = float(finite.std()) if len(finite) else 0.0
    for position, batch in enumerate(_batches(images)):
        try:
            actual = run(batch.numpy())
            if len(actual) != len(batch):
                raise SlimsearchError(f"the file gives {actual.shape} for a batch of {len(batch)}")
            if expected is not None:
                _compare(expected[position], actual, quantized, spread, rounding)
        except Exception as error:  # ONNX Runtime raises many kinds
            if position > 0:
                raise FixedBatchSize from error
            raise


def _batches(images: Tensor) -> list[Tensor]:
    """Batches of other images than the exporters', of their batch's size first."""
    return [_batch(images, EXAMPLE_IMAGES, size) for size in (EXAMPLE_IMAGES, *_OTHER_SIZES)]


def _batch(images: Tensor, first: int, size: int) -> Tensor:
    """`size` of the (N, C, H, W) images, from the beginning again after the last."""
    import torch

    return images[torch.arange(first, first + size) % len(images)].contiguous()


def _compare(expected: Array, actual: Array, quantized: bool, spread: float, rounding: Callable[[], float]) -> None:
    import numpy as np

    if actual.size != expected.size:
        raise SlimsearchError(f"the file gives {actual.shape}, the network {expected.shape}")
    finite = np.isfinite(expected)
    if finite.any():
        # A module that squeezes its output loses the dimension of a batch of one image; its file does not.
        parity_error(
            expected[finite],
            actual.reshape(expected.shape)[finite],
            quantized=quantized,
            spread=spread,
            rounding=rounding,
        )
