"""The formats of ``slimsearch export``: each writes a file, runs it and compares it with the network."""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression import (
    EXACT,
    CompiledNetwork,
    Network,
    c_compiler,
    convert,
    exact_error,
    memory_kib,
    needs_extra,
    parity_error,
    read_onnx,
    write_c,
)
from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators import DeployedModel
from slimsearch.evaluators.deployed.deployed_model import openvino_module
from slimsearch.files import EXPORT_PREFIX, atomic

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]


_ONE = "for one input at a time"


@dataclass(frozen=True)
class Written:
    """A file that was written and run.

    Attributes:
        outputs: of the file, for the images.
        error: see `Exported`.
        note: a remark for the user, or None.
    """

    outputs: Array
    error: float | None
    note: str | None = None


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        suffix: of the file.
        write: a function of the network, the ranked file or else its ONNX file, normalized images (N, C, H, W) float32
            and the path.
        lines: a function of the path and that of the vectors: a program that runs the file.
    """

    suffix: str
    write: Callable[[Network, Path, Tensor, Path], Written]
    lines: Callable[[Path, Path], tuple[str, ...]]


def c_name(path: Path) -> str:
    """The prefix of the names in a C file: its name as an identifier of C."""
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII).lower()
    return name if name[:1].isalpha() else f"network_{name}"


def _onnx(network: Network, file: Path, images: Tensor, path: Path) -> Written:
    with atomic(path) as temporary:
        _copy(file, temporary)
        model = DeployedModel(temporary)
        if network.quantization is not None:
            return Written(model(images.numpy()), None)
        return _checked(network, images, lambda batch: model(batch.numpy()))


def _copy(file: Path, path: Path) -> None:
    try:
        shutil.copyfile(file, path)
    except FileNotFoundError:
        raise SlimsearchError(f"there is no file '{file}'") from None


def _c(network: Network, file: Path, images: Tensor, path: Path) -> Written:
    return c_file(file, images.numpy(), path)


def c_file(file: Path, inputs: Array, path: Path) -> Written:
    """The C file and its header, compiled and compared with the ONNX file where there is a compiler.

    Raises:
        SlimsearchError: the ONNX file has no C file, or they disagree.
    """
    expected = DeployedModel(file)(inputs)
    name, files = c_name(path), (path.with_suffix(".h"), path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=EXPORT_PREFIX) as folder:
        write_c(file, Path(folder) / path.name, name)
        sizes = "RAM {ram_kib:.1f} KiB, flash {flash_kib:.1f} KiB".format_map(memory_kib(file))
        checked = Written(expected, None, f"{sizes}; not compiled: there is no C compiler here")
        if c_compiler() is not None:
            outputs = CompiledNetwork(Path(folder) / path.name, name, Path(folder))(inputs).reshape(expected.shape)
            check_error(error := exact_error(expected, outputs))
            checked = Written(outputs, error, sizes)
        for final in files:
            (Path(folder) / final.name).replace(final)
    return checked


def _torch_export(network: Network, file: Path, images: Tensor, path: Path) -> Written:
    import torch

    with atomic(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                batch = torch.export.Dim("batch", min=1, max=1 << 16)
                program = torch.export.export(network.module.eval(), (images,), dynamic_shapes=({0: batch},))
                torch.export.save(program, str(temporary))
                again = torch.export.load(str(temporary)).module()
            except Exception as error:  # torch.export raises exceptions of many types
                raise SlimsearchError(f"torch.export cannot express it: {first_line(error)}") from error
        return _checked(network, images, again, _float_note(network, file))


def _torchscript(network: Network, file: Path, images: Tensor, path: Path) -> Written:
    import torch

    with atomic(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            try:
                traced = torch.jit.trace(network.module.eval(), images, check_trace=False)  # type: ignore[no-untyped-call]
                torch.jit.save(traced, str(temporary))
                again = torch.jit.load(str(temporary))  # type: ignore[no-untyped-call]
            except Exception as error:  # torch.jit raises exceptions of many types
                raise SlimsearchError(f"TorchScript cannot express it: {first_line(error)}") from error
        return _checked(network, images, again, _float_note(network, file))


def _converted(runtime: str, network: Network, file: Path, images: Tensor, path: Path) -> Written:
    """The ranked file, if it is one of this runtime; else one that is made from the network."""
    import torch

    with atomic(path) as temporary:
        if file.suffix == path.suffix:
            _copy(file, temporary)
        else:
            convert(network, temporary, images)
        model = DeployedModel(temporary, runtime=runtime)
        if network.quantization is not None and file.suffix == path.suffix:
            return Written(model(images.numpy()), None, _ONE)
        if network.quantization is not None and runtime == "litert":
            note = f"int8 weights; {_ONE}"
            return _compared(network, images, lambda batch: torch.from_numpy(model(batch.numpy())), note)
        note = "; ".join(filter(None, (_ONE, _float_note(network, file))))
        return _checked(network, images, lambda batch: model(batch.numpy()), note)


def _openvino(network: Network, file: Path, images: Tensor, path: Path) -> Written:
    """The ONNX file as an intermediate representation: an XML file and its weights beside it."""
    with (
        needs_extra("openvino", "openvino"),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=EXPORT_PREFIX) as folder,
    ):
        openvino = openvino_module()
        core, made = openvino.Core(), Path(folder) / path.name
        openvino.save_model(core.read_model(read_onnx(file)), str(made), compress_to_fp16=False)
        compiled = core.compile_model(str(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = compiled(images.numpy())[0].copy()
        expected = DeployedModel(file, runtime="openvino")(images.numpy())
        check_error(error := exact_error(expected, found))
        for part in (made.with_suffix(".bin"), made):
            part.replace(path.with_name(part.name))
        return Written(found, error)


def _float_note(network: Network, file: Path) -> str | None:
    if network.quantization is None:
        return None
    return f"float32: the network that was quantized to make '{file}', whose accuracy, latency and size differ"


def _checked(network: Network, images: Tensor, run: Callable[[Tensor], Any], note: str | None = None) -> Written:
    import torch

    found, largest = [], 0.0
    with torch.no_grad():
        for batch in (images, images[:1]):  # the batch size is variable
            expected = network.module.eval()(batch).numpy()
            found.append(torch.as_tensor(run(batch)).numpy())
            largest = max(largest, exact_error(expected, found[-1]))
    check_error(largest)
    return Written(found[0], largest, note)


def _compared(network: Network, images: Tensor, run: Callable[[Tensor], Tensor], note: str) -> Written:
    """With the network before its activations were quantized: int8 weights may differ from its own."""
    import torch

    with torch.no_grad():
        expected = network.module.eval()(images).numpy()
    found = run(images).numpy()
    return Written(found, parity_error(expected, found, quantized=True), note)


def check_error(error: float) -> None:
    """Raise an error if a file disagrees with the network.

    Raises:
        SlimsearchError: the error is larger than allowed.
    """
    if not error <= EXACT:
        raise SlimsearchError(
            f"the exported file disagrees with the network: logits differ by {error:.3g} of their size, allowed "
            f"{EXACT:.3g}"
        )


def _load(vectors: Path, *modules: str) -> tuple[str, str]:
    return f"import {', '.join(modules)}", f"vectors = numpy.load({str(vectors)!r})"


_COMPARE = 'print(abs(outputs - vectors["outputs"]).max())'


def _onnx_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "onnxruntime"),
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        'outputs = session.run(None, {session.get_inputs()[0].name: vectors["inputs"]})[0]',
        _COMPARE,
    )


def _torch_export_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "torch"),
        f"network = torch.export.load({str(path)!r}).module()",
        'outputs = network(torch.from_numpy(vectors["inputs"])).detach().numpy()',
        _COMPARE,
    )


def _torchscript_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "torch"),
        f"network = torch.jit.load({str(path)!r})",
        'outputs = network(torch.from_numpy(vectors["inputs"])).detach().numpy()',
        _COMPARE,
    )


def _litert_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "ai_edge_litert.interpreter"),
        f"run = ai_edge_litert.interpreter.Interpreter({str(path)!r}).get_signature_runner()",
        'outputs = numpy.concatenate([run(args_0=one[None])["output_0"] for one in vectors["inputs"]])',
        _COMPARE,
    )


def _executorch_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "torch", "executorch.runtime"),
        f'run = executorch.runtime.Runtime.get().load_program({str(path)!r}).load_method("forward").execute',
        'outputs = numpy.concatenate([run([torch.tensor(one[None])])[0].numpy() for one in vectors["inputs"]])',
        _COMPARE,
    )


def _openvino_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    return (
        *_load(vectors, "numpy", "openvino"),
        f'run = openvino.Core().compile_model({str(path)!r}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
        'outputs = run(vectors["inputs"])[0]',
        _COMPARE,
    )


def _c_lines(path: Path, vectors: Path) -> tuple[str, ...]:
    name = c_name(path)
    return (
        f'#include "{path.with_suffix(".h").name}"',
        f"for (int i = 0; i < {name.upper()}_INPUTS; i++) {name}_input()[i] = input[i];",
        f"const float *outputs = {name}_run();",
        f'for (int i = 0; i < {name.upper()}_OUTPUTS; i++) printf("%g\\n", outputs[i]);',
    )


FORMATS = {
    "onnx": Format(".onnx", _onnx, _onnx_lines),
    "c": Format(".c", _c, _c_lines),
    "litert": Format(".tflite", functools.partial(_converted, "litert"), _litert_lines),
    "executorch": Format(".pte", functools.partial(_converted, "executorch"), _executorch_lines),
    "openvino": Format(".xml", _openvino, _openvino_lines),
    "torch-export": Format(".pt2", _torch_export, _torch_export_lines),
    "torchscript": Format(".ts", _torchscript, _torchscript_lines),
}
"""By name."""
