"""Runtimes that execute exported files, and the packages that they need.

Boards run this module too, see `slimsearch.evaluators.latency.boards`.
"""

from __future__ import annotations

ON_ONNX = ("onnxruntime", "openvino")
"""Names of the runtimes that run ONNX files."""
SUFFIXES = {"litert": ".tflite", "executorch": ".pte"}
"""The suffix of the files of each runtime that does not run ONNX files."""
RUNTIMES = (*ON_ONNX, *SUFFIXES)
"""Names of the runtimes of ``--runtime``."""
DISTRIBUTIONS = {
    **{runtime: (runtime,) for runtime in RUNTIMES}, "litert": ("ai-edge-litert", "litert-torch", "ai-edge-quantizer"),
}  # fmt: skip
"""The packages that write and run the files of each runtime; the first one runs them."""
