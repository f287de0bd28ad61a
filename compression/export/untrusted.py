"""Loading of untrusted ONNX files: reads files without external data, and makes ONNX Runtime sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.packed import feeder, joined

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def read_onnx(path: Path) -> bytes:
    """Read an ONNX file, and check that it contains all its weights.

    An ONNX file may refer to a tensor in another file, by a path that its author chose, or at a memory address. Load
    the returned bytes, not the file again, which may have changed since.

    Raises:
        SlimsearchError: the file is missing, cannot be read, is not an ONNX file, or refers to external data.
    """
    import onnx

    if not path.exists():
        raise SlimsearchError(f"there is no file '{path}'")
    try:
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the file system and protobuf raise many kinds
        raise SlimsearchError(f"'{path}' is no ONNX file: {first_line(error)}") from error
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "nowhere")
            raise SlimsearchError(
                f"'{path}' has the weights of '{tensor.name}' in another file, '{location}': an ONNX file is "
                "read only if everything is in it"
            )
    return content


def session_options(threads: int) -> Any:
    """Options of an `onnxruntime.InferenceSession` on `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Without warnings that an optimized file fits this machine only, and without logs of raised errors.
    options.log_severity_level = 4
    # Threads that spin between calls slow down other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    # Not the runtime's own format, which `read_onnx` cannot check.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def onnxruntime_session(content: bytes, threads: int) -> Callable[[Array], Array]:
    """The serialized model in ONNX Runtime on the CPU: a function from its input to its output.

    Several inputs or outputs are packed, see `slimsearch.packed`; outputs of text are left out.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, session_options(threads), providers=["CPUExecutionProvider"])
    inputs = [(entry.name, entry.shape) for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs() if entry.type != "tensor(string)"]
    if len(inputs) == 1 and len(outputs) == 1:
        name = inputs[0][0]
        return lambda images: session.run(outputs, {name: images})[0]
    feed = feeder(inputs)
    return lambda values: joined(session.run(outputs, feed(values)))


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a protobuf message: initializers, attributes, subgraphs, functions, sparse tensors."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inside in (value,) if hasattr(value, "ListFields") else value:
            if field.message_type.full_name == "onnx.TensorProto":
                yield inside
            else:
                yield from _tensors(inside)
