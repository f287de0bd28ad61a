"""The exported file as its user runs it: loaded from disk into the runtime that it is deployed with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from slimsearch.compression import read_onnx
from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.datasets import Dataset, Split

Array = np.ndarray[Any, np.dtype[Any]]
_Run = Callable[[Array], Array]

RUNTIMES = ("onnxruntime", "openvino")


class DeployedModel:
    """An ONNX file loaded from disk, on the CPU.

    Args:
        path: of the file.
        threads: that compute one call.
        runtime: one of `RUNTIMES`; all of them run the same file.

    Raises:
        SlimsearchError: the runtime is not installed, or cannot load the file.
    """

    def __init__(self, path: Path, threads: int = 1, runtime: str = "onnxruntime") -> None:
        load = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime]
        content = read_onnx(path)
        try:
            self._run = load(content, threads)
        except ImportError as error:
            raise SlimsearchError(
                f"--runtime {runtime}: a package is not installed, pip install 'slimsearch[{runtime}]' ({error})"
            ) from error
        except Exception as error:  # a runtime has an exception for every reason
            raise SlimsearchError(f"{runtime} cannot load '{path}': {first_line(error)}") from error

    def __call__(self, images: Array) -> Array:
        """(N, C, H, W) float32, normalised -> (N, num_classes) logits."""
        return self._run(images)

    def predict(self, data: Dataset, split: Split) -> Array:
        """Class of each image of `split`, (N,) int64."""
        found = [self(images.numpy()).argmax(axis=1) for images, _ in data.batches(split)]
        return np.concatenate(found).astype(np.int64)


def _onnxruntime(content: bytes, threads: int) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between calls would disturb whatever runs beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino(content: bytes, threads: int) -> _Run:
    openvino = _quiet_openvino()
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
        # By itself it would compute in bfloat16 where the processor can: the file says float32.
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    request = compiled.create_infer_request()

    def run(images: Array) -> Array:
        return np.array(next(iter(request.infer({0: images}, share_inputs=True).values())))

    return run


def _quiet_openvino() -> ModuleType:
    """OpenVINO, which tells Google Analytics that it was imported, unless its user has declined.

    Here it tells only if its user has agreed (``opt_in_out --opt_in``): without the package that tells, it has a stub.
    """
    answer = Path.home() / "intel" / "openvino_telemetry"
    agreed = answer.is_file() and answer.read_bytes().strip() == b"1"
    hidden = not agreed and "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


def runtime_version(runtime: str) -> str:
    """``onnxruntime 1.31.0``

    Raises:
        SlimsearchError: it is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{runtime} {version(runtime)}"
    except PackageNotFoundError:
        raise SlimsearchError(
            f"--runtime {runtime} is not installed: pip install 'slimsearch[{runtime}]', or take onnxruntime"
        ) from None


def size_kib(path: Path) -> float:
    """Size of the file in KiB."""
    return path.stat().st_size / 1024
