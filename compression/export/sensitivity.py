"""Which layers of a network suffer most from integers, measured with int8 files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.export.int8 import to_int8, weighted_layers
from slimsearch.compression.export.to_onnx import INPUT, float_file, quiet
from slimsearch.compression.export.untrusted import onnxruntime_session
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.compression.quantization.plan import Quantization
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

_RANKED = 64  # images for the error of a single layer


def sensitive_layers(network: Network, images: Tensor, plan: Quantization, most_changed: float) -> list[str]:
    """Names of the layers that stay in float32, so that few answers change; in the order of the file.

    The layers are ranked by the squared error of the logits of a file in which each alone is quantized, with its input
    and its output. As many of the first ones stay in float32 as it takes.

    Args:
        network: stays unchanged.
        images: (N, C, H, W) float32, for calibration and measurement.
        plan: of the file, in which all layers are quantized.
        most_changed: largest share of the images for which the file may answer otherwise than in float32, in [0, 1].

    Raises:
        SlimsearchError: every layer would have to stay in float32, or the network cannot be exported or quantized.
    """
    import numpy as np
    import onnx

    with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder, quiet():
        file = Path(folder) / "model.onnx"
        named = replace(network, quantization=replace(plan, keep_float="named"))  # a file that keeps the layers' names
        float_file(fold_batch_norm(named, images[:2]), file, images)
        expected = onnxruntime_session(file.read_bytes(), 1)(images.numpy())
        layers = list(weighted_layers(onnx.load(str(file)).graph))

        def logits(kept: Collection[str], part: Tensor) -> Array:
            own = replace(plan, keep_float=" ".join(kept) or "none")
            return onnxruntime_session(to_int8(file, Path(folder), INPUT, part, own).read_bytes(), 1)(part.numpy())

        part = images[:_RANKED]
        errors = {
            name: float(np.square(logits([n for n in layers if n != name], part) - expected[: len(part)]).mean())
            for name in layers
        }
        ranked = sorted(layers, key=lambda name: -errors[name])

        def changed(count: int) -> float:
            return float((logits(ranked[:count], images).argmax(-1) != expected.argmax(-1)).mean())

        count = _least(changed, len(layers), most_changed)
    if count == len(layers):
        raise SlimsearchError(f"max_drop: every layer would have to stay in float32 for {100 * most_changed:g} points")
    return [name for name in layers if name in ranked[:count]]


def _least(changed: Callable[[int], float], most: int, bound: float) -> int:
    """The least count up to `most` with ``changed(count) <= bound``, by bisection; `most` if there is none below."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if changed(middle) <= bound else (middle + 1, high)
    return low
