"""ONNX files as teachers: loaded, checked, and run for their logits or for the outputs of their layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression.export.untrusted import read_onnx
from slimsearch.errors import SlimsearchError, first_line

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import Tensor


class OnnxFile:
    """An ONNX file that takes the images, run by ONNX Runtime on the CPU with one thread.

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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised as well as logged
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            model = self._model(read_onnx(path))
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnx and onnxruntime have an exception for every reason
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
        """The named outputs, all of them by default, for (N, C, H, W) float32 `images`, where the images are.

        Raises:
            SlimsearchError: it cannot be run on them.
        """
        import torch

        try:
            given = self._session.run(outputs, {self._input: images.detach().cpu().contiguous().numpy()})
        except Exception as error:
            raise SlimsearchError(f"{self.name} cannot be run on the images: {first_line(error)}") from error
        return [torch.from_numpy(answer).to(images.device) for answer in given]


class OnnxFeatures(OnnxFile):
    """The outputs of the layers of an ONNX file, each known by the name of its tensor.

    A layer is a Conv, Gemm or MatMul whose weight the file holds, in whatever form: as it is, or as what Cast, Mul,
    Gather, DequantizeLinear and the like make of constants. A vector added to the product of a MatMul is the bias of
    the layer. They come in the order of the file's nodes, without the last, which gives the logits.

    A BatchNorm is usually folded into the convolution before it when a file is made: what this convolution gives is
    then already normalised. In an int8 file of QDQ operators what a layer gives is float32, from quantized inputs and
    weights, and not yet quantized itself.

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
        self.shapes(images)  # a file that cannot be run fails here, not in the training

    def _model(self, content: bytes) -> bytes:
        import onnx

        model = onnx.load_model_from_string(content)
        self._is_convolution = _layers(model.graph)
        if self._is_convolution:
            # Instead of the logits, not beside them: the runtime leaves out operators without a use.
            del model.graph.output[:]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._is_convolution)
        serialized: bytes = model.SerializeToString()
        return serialized

    def shapes(self, images: Tensor) -> Mapping[str, torch.Size]:
        """The shape of what each layer gives for `images`, in the order of the file."""
        names = [*self._is_convolution]
        return {name: given.shape for name, given in zip(names, self.run(images, names), strict=True)}

    def is_convolution(self, name: str) -> bool:
        """Whether the channels of that layer are the second dimension; otherwise they are the last."""
        return self._is_convolution[name]

    def attach(self, names: Collection[str]) -> None:
        """Set the layers whose features are wanted."""
        self._wanted = [*names]

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """The features of those layers, as float32, where the images are."""
        assert self._wanted, "attach comes first"
        given = self.run(images, self._wanted)
        return {name: tensor.float() for name, tensor in zip(self._wanted, given, strict=True)}

    def detach(self) -> None:
        """Nothing to undo."""


def _layers(graph: onnx.GraphProto) -> dict[str, bool]:
    """Names of the layers' outputs, and whether the layer is a convolution; without the logits."""
    # The dimensions of every constant, for what is computed of several those of the largest.
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
    """The sum of `product` and a constant vector, if that is the only use of it; otherwise `product`."""
    tensor = product
    while len(readers.get(tensor, ())) == 1:
        (node,) = readers[tensor]
        if node.op_type == "Add" and any(constants.get(name, 2) < 2 for name in node.input):
            return str(node.output[0])
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            break
        tensor = node.output[0]
    return product
