"""The exported file, loaded from disk into the deploy runtime, and its agreement with the network.

Boards run this module too, see `slimsearch.evaluators.latency.boards`: it imports NumPy and the runtime alone.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.compression.export.converted import runtime_of, silent
from slimsearch.compression.export.untrusted import onnxruntime_session, read_onnx
from slimsearch.errors import SlimsearchError, first_line, reason
from slimsearch.packed import feeder, joined
from slimsearch.runtimes import DISTRIBUTIONS, RUNTIMES, SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.compression import Network
    from slimsearch.evaluators.datasets import Dataset, Split

Array = np.ndarray[Any, np.dtype[Any]]
_Run = Callable[[Array], Array]

_PARITY_EXAMPLES = 64


class DeployedModel:
    """An exported file loaded from disk, run on the CPU.

    Args:
        path: of the file.
        threads: per call.
        runtime: one of `slimsearch.runtimes.RUNTIMES`.
        content: of the file, if `read_file` has read it already.

    Raises:
        SlimsearchError: the runtime is unknown or not installed, or cannot load the file.
    """

    def __init__(
        self, path: Path, threads: int = 1, runtime: str = "onnxruntime", content: bytes | None = None
    ) -> None:
        if runtime not in RUNTIMES:
            raise SlimsearchError(f"unknown runtime '{runtime}'; known: {', '.join(RUNTIMES)}")
        content = read_file(path, runtime) if content is None else content
        self._path = path
        try:
            self._run = _LOADERS[runtime](content, threads)
        except ImportError as error:
            raise SlimsearchError(
                f"--runtime {runtime}: a package is not installed, pip install 'slimsearch[{runtime}]' ({error})"
            ) from error
        except Exception as error:  # a runtime has an exception for every reason
            raise SlimsearchError(f"{runtime} cannot load '{path}': {first_line(error)}") from error

    def __call__(self, inputs: Array) -> Array:
        """(N, ...) float32, normalized -> (N, ...) outputs, such as logits of classes.

        Raises:
            SlimsearchError: the file fails on the inputs.
        """
        try:
            return self._run(inputs)
        except Exception as error:  # a runtime has an exception for every reason
            raise SlimsearchError(
                f"'{self._path}' fails on {' x '.join(map(str, inputs.shape))} inputs: {first_line(error)}"
            ) from error

    def predict(self, data: Dataset, split: Split) -> Array:
        """The predictions for `split`, see `LearningTask.predictions`; of a classification, (N,) int64."""
        return np.concatenate([data.task.predictions(self(inputs.numpy())) for inputs, _ in data.batches(split)])

    def examples(self, data: Dataset, split: Split) -> Array:
        """What the metrics of the examples of `split` are computed from, see `LearningTask.examples`."""
        return data.task.measured(self, data, split)


def _openvino(content: bytes, threads: int) -> _Run:
    openvino = openvino_module()
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
        # By default OpenVINO computes in bfloat16 where the processor supports it; the file is float32.
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    request = compiled.create_infer_request()

    inputs = [
        (one.get_any_name(), [size.get_length() if size.is_static else 0 for size in one.get_partial_shape()])
        for one in compiled.inputs
    ]

    feed = feeder(inputs)

    def run(images: Array) -> Array:
        if len(inputs) == 1 and len(compiled.outputs) == 1:
            return np.array(next(iter(request.infer({0: images}, share_inputs=True).values())))
        found = request.infer(
            {name: np.ascontiguousarray(one) for name, one in feed(images).items()}, share_inputs=True
        )
        return np.array(joined([found[output] for output in compiled.outputs]))

    return run


def _litert(content: bytes, threads: int) -> _Run:
    from ai_edge_litert.interpreter import Interpreter

    with silent():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    (images,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(one: Array) -> Array:
        interpreter.set_tensor(images["index"], one)
        interpreter.invoke()
        found: Array = interpreter.get_tensor(outputs["index"])
        return found

    return _one_by_one(run)


def _executorch(content: bytes, threads: int) -> _Run:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    loaded = -1

    def load() -> Any:
        nonlocal loaded
        with silent():
            if _ExecuTorchThreads.count != threads:
                portable_lib._unsafe_reset_threadpool(threads)
                _ExecuTorchThreads.count, _ExecuTorchThreads.changes = threads, _ExecuTorchThreads.changes + 1
            loaded = _ExecuTorchThreads.changes
            return Runtime.get().load_program(content).load_method("forward")

    method = load()

    def run(one: Array) -> Array:
        nonlocal method
        if loaded != _ExecuTorchThreads.changes:
            method = load()
        # The outputs are in the memory of the method, which the next call overwrites.
        found: Array = method.execute([torch.from_numpy(one)])[0].numpy().copy()
        return found

    return _one_by_one(run)


class _ExecuTorchThreads:
    """The threads that all files of the process share; a file that was loaded before they changed would crash."""

    count, changes = 0, 0


def _one_by_one(run: _Run) -> _Run:
    """A function of (N, ...) from one of (1, ...), whose result may lack the first dimension."""

    def each(images: Array) -> Array:
        found = [run(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
        return np.concatenate([one if one.shape[:1] == (1,) else one[None] for one in found])

    return each


_LOADERS = {"onnxruntime": onnxruntime_session, "openvino": _openvino, "litert": _litert, "executorch": _executorch}


def read_file(path: Path, runtime: str) -> bytes:
    """The content of a file for a runtime; that of an ONNX file is checked, see `read_onnx`.

    Raises:
        SlimsearchError: it is a file for another runtime, or cannot be read.
    """
    own = runtime_of(path)
    if own is not None and own != runtime:
        raise SlimsearchError(f"'{path}' is a file for --runtime {own}, not {runtime}")
    if own is None and runtime in SUFFIXES:
        raise SlimsearchError(f"'{path}' is no {SUFFIXES[runtime]} file, which --runtime {runtime} needs")
    if own is None:
        return read_onnx(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SlimsearchError(f"'{path}' cannot be read: {reason(error)}") from error


def onnx_of(path: Path) -> Path:
    """The ONNX file of the network of an exported file, which is beside a converted one."""
    return path if runtime_of(path) is None else path.with_suffix(".onnx")


def openvino_module() -> ModuleType:
    """The OpenVINO module, without telemetry unless the user has opted in (``opt_in_out --opt_in``).

    OpenVINO reports its import to Google Analytics by default; it skips that if `openvino_telemetry` is missing.
    """
    consent = Path.home() / "intel" / "openvino_telemetry"
    opted_in = consent.is_file() and consent.read_bytes().strip() == b"1"
    hidden = not opted_in and "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


def runtime_version(runtime: str) -> str:
    """Name and version, such as ``onnxruntime 1.31.0``.

    Raises:
        SlimsearchError: the runtime is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        first, *_ = [version(name) for name in DISTRIBUTIONS[runtime]]
        return f"{runtime} {first}"
    except PackageNotFoundError:
        raise SlimsearchError(
            f"--runtime {runtime} is not installed: pip install 'slimsearch[{runtime}]', or use onnxruntime"
        ) from None


def size_kib(path: Path) -> float:
    """Size of a file in KiB."""
    return path.stat().st_size / 1024


def outputs_of(network: Network) -> _Run:
    """The outputs of a network in PyTorch, as those of a `DeployedModel`: (N, ...) float32, normalized -> (N, ...)."""
    import torch

    module = network.module.eval()

    def run(inputs: Array) -> Array:
        with torch.no_grad():
            outputs: Array = module(torch.from_numpy(np.ascontiguousarray(inputs))).numpy()
        return outputs

    return run


def check_parity(network: Network, path: Path, run: _Run, data: Dataset, calibration: Callable[[], Tensor]) -> float:
    """`parity_error` of the file's outputs on validation examples.

    A large error is due to the rounding of activations, and to values outside of their ranges, if the file without
    rounding is right on the calibration images. It may have any size if the ranges leave out values of these images,
    and with weights of fewer bits: the export has compared that file with the network of rounded weights. In a
    converted file, it is allowed as far as the rounding of weights explains it.

    Args:
        network: as it was exported.
        path: of the file.
        run: the file in its runtime.
        data: the data set.
        calibration: gives the images of the export, (N, C, H, W) float32; it is called if the error is large.

    Raises:
        SlimsearchError: the file disagrees with the network.
    """
    from slimsearch.compression import QUANTIZED, parity_error, rounding_error, without_rounding

    examples = data.normalise(data.validation.inputs[:_PARITY_EXAMPLES])
    inputs = examples.numpy()
    expected, plan = outputs_of(network)(inputs), network.quantization
    if plan is not None and runtime_of(path) is not None:
        rounding = functools.partial(rounding_error, network, examples)
        return parity_error(expected, run(inputs), quantized=True, rounding=rounding)
    error = parity_error(expected, run(inputs), quantized=plan is not None, bounded=plan is None)
    if plan is not None and not plan.bits and not plan.clips and not error <= QUANTIZED:
        images = calibration()[:_PARITY_EXAMPLES]
        found = onnxruntime_session(without_rounding(read_onnx(path)), 1)(images.numpy())
        of_weights = functools.partial(rounding_error, network, images)
        parity_error(outputs_of(network)(images.numpy()), found, quantized=True, rounding=of_weights)
    return error
