"""ONNX files as teachers: loading, and inference of their logits or layer outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression.export.untrusted import read_onnx, session_options
from slimsearch.errors import SlimsearchError, first_line

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import Tensor


class OnnxFile:
    """An ONNX file, run by ONNX Runtime on the CPU with one thread.

    Args:
        path: of the file.
        images: (N, C, H, W) float32, an input that the file must accept.

    Attributes:
        name: for messages.

    Raises:
        SlimsearchError: the file is missing or damaged, or has another input.
    """

    def __init__(self, path: Path, images: Tensor) -> None:
        import onnxruntime

        self.name = f"teacher '{path}'"
        path = path.expanduser()
        if not path.is_file():
            raise SlimsearchError(f"{self.name}: there is no such file in '{path.absolute().parent}'")
        try:
            model = self._model(read_onnx(path))
            self._session = onnxruntime.InferenceSession(model, session_options(1), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnx and onnxruntime raise many kinds
            raise SlimsearchError(f"{self.name} cannot be loaded: {first_line(error)}") from error
        inputs = self._session.get_inputs()
        taken = [f"{entry.type} {entry.shape}" for entry in inputs]
        sizes = [size if isinstance(size, int) else None for size in inputs[0].shape] if len(inputs) == 1 else []
        wanted = (None, *images.shape[1:])
        fits = len(sizes) == len(wanted) and all(size in (None, own) for size, own in zip(sizes, wanted, strict=True))
        if not fits:
            shape = ", ".join(map(str, images.shape[1:]))
            raise SlimsearchError(f"{self.name} takes {' and '.join(taken)}, the images are float32 (N, {shape})")
        self._input = inputs[0].name

    def _model(self, content: bytes) -> bytes:
        """The model that ONNX Runtime loads, from the content of the file."""
        return content

    def run(self, images: Tensor, outputs: Sequence[str] | None = None) -> list[Tensor]:
        """The named outputs, by default all, for (N, C, H, W) float32 `images`, on the device of the images.

        Raises:
            SlimsearchError: the file fails on the images.
        """
        import torch

        try:
            given = self._session.run(outputs, {self._input: images.detach().cpu().contiguous().numpy()})
        except Exception as error:
            raise SlimsearchError(f"{self.name} cannot be run on the images: {first_line(error)}") from error
        return [torch.from_numpy(answer).to(images.device) for answer in given]


class OnnxFeatures(OnnxFile):
    """The layer outputs of an ONNX file, by tensor name, in the order of its nodes, without the logits.

    A layer is a Conv, Gemm or MatMul whose weight is in the file, as an initializer or computed from constants (by
    Cast, Mul, Gather, DequantizeLinear and others). A vector added to the product of a MatMul is the bias of the layer.

    Exporters usually fold a BatchNorm into the preceding convolution, whose output is then already normalized. In an
    int8 file with QDQ operators, a layer's output is float32, computed from quantized inputs and weights, before its
    own quantization.

    Args:
        path: of the file.
        images: (N, C, H, W) float32, an input that the file must accept.

    Raises:
        SlimsearchError: the file is missing or damaged, has another input, or has no such layers.
    """

    def __init__(self, path: Path, images: Tensor) -> None:
        self._is_convolution: dict[str, bool] = {}
        self._wanted: list[str] = []
        super().__init__(path, images)
        if not self._is_convolution:
            raise SlimsearchError(
                f"{self.name} has no Conv, Gemm or MatMul with a weight of its own but the one that gives the logits"
            )
        self.shapes(images)  # fail here, not in the training, if the file cannot be run

    def _model(self, content: bytes) -> bytes:
        import onnx

        model = onnx.load_model_from_string(content)
        self._is_convolution = _layers(model.graph)
        if self._is_convolution:
            # Without the logits, so that the runtime omits operators without a use.
            del model.graph.output[:]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._is_convolution)
        serialized: bytes = model.SerializeToString()
        return serialized

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        """See `Teacher`."""
        names = [*self._is_convolution]
        return {name: given.shape for name, given in zip(names, self.run(images, names), strict=True)}

    def is_convolution(self, name: str) -> bool:
        """See `Teacher`."""
        return self._is_convolution[name]

    def attach(self, names: Collection[str]) -> None:
        """See `Teacher`."""
        self._wanted = [*names]

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """See `Teacher`."""
        assert self._wanted, "attach comes first"
        given = self.run(images, self._wanted)
        return {name: tensor.float() for name, tensor in zip(self._wanted, given, strict=True)}

    def detach(self) -> None:
        """See `Teacher`."""


def _layers(graph: onnx.GraphProto) -> dict[str, bool]:
    """Names of the layers' outputs, and whether the layer is a convolution; without the logits."""
    # The number of dimensions of every constant; the maximum for one that is computed from several.
    constants = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant":
            dims = max((len(attribute.t.dims) for attribute in node.attribute), default=0)
            constants.update(dict.fromkeys(node.output, dims))
        elif inputs and all(name in constants for name in inputs):
            constants.update(dict.fromkeys(node.output, max(constants[name] for name in inputs)))
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.output[0] not in constants:
            if constants.get(node.input[1], 0) < 2:
                continue
            name = _with_bias(node.output[0], readers, constants) if node.op_type == "MatMul" else node.output[0]
            found[name] = node.op_type == "Conv"
    if found:
        found.popitem()
    return found


def _with_bias(product: str, readers: Mapping[str, Sequence[onnx.NodeProto]], constants: Mapping[str, int]) -> str:
    """The sum of `product` and a constant vector, if that is its only use; otherwise `product`."""
    tensor = product
    while len(readers.get(tensor, ())) == 1:
        (node,) = readers[tensor]
        if node.op_type == "Add" and any(constants.get(name, 2) < 2 for name in node.input):
            return str(node.output[0])
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            break
        tensor = node.output[0]
    return product
