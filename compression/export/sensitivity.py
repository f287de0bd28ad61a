"""Which layers of a network suffer most from a quantization, measured with files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.export.int8 import feeder_of, float_layers, to_int8, weighted_layers
from slimsearch.compression.export.storage import store
from slimsearch.compression.export.to_onnx import float_file, quiet, tidy
from slimsearch.compression.export.untrusted import onnxruntime_session, session_options
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.compression.quantization.plan import STATIC, Quantization
from slimsearch.compression.quantization.rounding import round_weights
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]

_RANKED = 64  # images for the error of a single layer
_BATCH = 16  # images whose results of all layers are held at a time


class LayerFiles:
    """Files of one network, in each of which other layers are quantized.

    Args:
        network: stays unchanged.
        images: calibration images, (N, C, H, W) float32.
        plan: of the file in which all layers are quantized, except for its `keep_float`.
        folder: for the files, of which there is one at a time.

    Attributes:
        layers: names of the layers with weights, in the order of the file.
        float_file: in which no layer is quantized.

    Raises:
        SlimsearchError: the network cannot be exported or quantized.
    """

    def __init__(self, network: Network, images: Tensor, plan: Quantization, folder: Path) -> None:
        import onnx

        self._images, self._folder = images, folder
        self.float_file = folder / "float.onnx"
        # A plan with names keeps those of the layers in the file.
        folded = fold_batch_norm(replace(network, quantization=replace(plan, keep_float="named")), images[:2])
        with quiet():
            float_file(folded, self.float_file, images)
        graph = onnx.load(str(self.float_file)).graph
        self.layers = list(weighted_layers(graph))
        self._kept = float_layers(graph, plan.keep_float)
        self._plan = plan
        self._rounded: dict[str, onnx.TensorProto] = {}
        if plan.bits:
            rounded = round_weights(folded, images)
            assert rounded.quantization is not None
            self._plan = replace(plan, learned=rounded.quantization.learned)
            path = folder / "rounded.onnx"
            with quiet():
                float_file(replace(rounded, quantization=replace(self._plan, keep_float="named")), path, images)
            self._rounded = {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}

    def write(self, in_float32: Collection[str] = (), images: Tensor | None = None) -> Path:
        """The file in which all layers but some are quantized; it is overwritten by the next one.

        Args:
            in_float32: names of layers.
            images: calibration images in place of those of the network, (N, C, H, W) float32.
        """
        import onnx

        learned = {name: known for name, known in self._plan.learned.items() if name not in in_float32}
        model = onnx.load(str(self.float_file))
        for tensor in model.graph.initializer:
            layer, _, kind = tensor.name.rpartition(".")
            if layer in self._plan.bits and layer in learned and kind in ("weight", "bias"):
                tensor.CopyFrom(self._rounded[tensor.name])
        path = self._folder / "mixed.onnx"
        if self._plan.form != STATIC:
            onnx.save(store(model, self._plan.form, learned, lambda layer: layer not in in_float32), str(path))
            return path
        onnx.save(model, str(path))
        kept = [name for name in self.layers if name in in_float32 or name in self._kept]
        bits = {name: own for name, own in self._plan.bits.items() if name not in in_float32}
        plan = replace(self._plan, keep_float=" ".join(kept) or "none", learned=learned, bits=bits)
        with quiet():
            return to_int8(path, self._folder, self._images if images is None else images, plan)

    def finished(self, in_float32: Collection[str], path: Path, metadata: Mapping[str, str]) -> Path:
        """Write the file to `path` as `export_onnx` does, with `metadata`."""
        path.write_bytes(self.write(in_float32).read_bytes())
        tidy(path, metadata)
        return path

    def alone(self, layer: str, images: Tensor | None = None) -> Path:
        """The file in which one layer alone is quantized; see `write`."""
        return self.write([name for name in self.layers if name != layer], images)

    def signal_to_noise(self, images: Tensor) -> dict[str, float]:
        """``10 log10(mean(x^2) / mean((x - quantized x)^2))`` of the results of each layer, in dB, by name.

        The errors are those of the layer and of all before it. A layer without a result that both files have is
        missing.

        Args:
            images: (N, C, H, W) float32.
        """
        import numpy as np
        import onnx

        quantized = onnx.load(str(self.write()))
        static = self._plan.form == STATIC
        original = onnx.load(str(self._folder / "prepared.onnx" if static else self.float_file))
        pairs = _results(weighted_layers(original.graph), original.graph, quantized.graph)
        names = [name for name, *_ in pairs]
        runs = [
            _values_of(model, [pair[position] for pair in pairs]) for position, model in ((1, original), (2, quantized))
        ]
        powers = np.zeros((len(pairs), 2))
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH].numpy()
            for position, (exact, rounded) in enumerate(zip(*(run(batch) for run in runs), strict=True)):
                powers[position] += np.square(exact).sum(), np.square(exact - rounded).sum()
        with np.errstate(divide="ignore"):
            return dict(zip(names, (10 * np.log10(powers[:, 0] / powers[:, 1])).tolist(), strict=True))


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
    with tempfile.TemporaryDirectory(prefix="slimsearch-") as folder:
        files = LayerFiles(network, images, plan, Path(folder))
        expected = _outputs(files.float_file, images)
        errors = {
            name: _error(files.alone(name, images[:_RANKED]), images[:_RANKED], expected) for name in files.layers
        }
        ranked = sorted(files.layers, key=lambda name: -errors[name])

        def changed(count: int) -> float:
            found = _outputs(files.write(ranked[:count]), images)
            return float((found.argmax(-1) != expected.argmax(-1)).mean())

        count = _least(changed, len(ranked), most_changed)
    if count == len(ranked):
        raise SlimsearchError(f"max_drop: every layer would have to stay in float32 for {100 * most_changed:g} points")
    return [name for name in files.layers if name in ranked[:count]]


def _outputs(path: Path, images: Tensor) -> Array:
    return onnxruntime_session(path.read_bytes(), 1)(images.numpy())


def _error(path: Path, images: Tensor, expected: Array) -> float:
    """The mean squared error of the outputs of a file, of which `expected` has the first ones."""
    import numpy as np

    return float(np.square(_outputs(path, images) - expected[: len(images)]).mean())


def _least(changed: Callable[[int], float], most: int, bound: float) -> int:
    """The least count up to `most` with ``changed(count) <= bound``, by bisection; `most` if there is none below."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if changed(middle) <= bound else (middle + 1, high)
    return low


def _results(
    layers: Mapping[str, str], original: onnx.GraphProto, quantized: onnx.GraphProto
) -> list[tuple[str, str, str]]:
    """Each layer with the names of its result in both files; an activation that became part of the layer is in it.

    Args:
        layers: names of nodes by those of layers.
        original, quantized: the graphs of both files.
    """
    known = {name for node in original.node for name in node.output}
    outputs = {node.name: node.output[0] for node in quantized.node}
    readers: dict[str, onnx.NodeProto] = {}
    for node in quantized.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            readers.setdefault(node.input[0], node)
    found = []
    for layer, node_name in layers.items():
        name = end = outputs.get(node_name, "")
        while end in readers:  # as the next layer reads it
            end = readers[end].output[0]
        name = name if name in known else end  # the outputs of the network keep their names
        if name in known:
            found.append((layer, name, end))
    return found


def _values_of(model: onnx.ModelProto, names: list[str]) -> Callable[[Array], list[Array]]:
    """A function from images to values inside of a model, by their names."""
    import onnx
    import onnxruntime

    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    feed = feeder_of(model.graph)

    def run(images: Array) -> list[Array]:
        values: list[Array] = session.run(names, feed(images))
        return values

    return run
