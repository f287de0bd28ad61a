"""Export of a network to its ONNX file: float32, or in the form of its quantization plan."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.export.int8 import to_int8
from slimsearch.compression.export.storage import store
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.compression.quantization.plan import CODEBOOK, KEPT_FLOAT, STATIC
from slimsearch.errors import SlimsearchError, describe_error

if TYPE_CHECKING:
    from torch import Tensor

INPUT, OUTPUT = "images", "logits"
_OPSET = 17


def export_onnx(network: Network, path: Path, images: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network` to `path` as one ONNX file, ``images`` (N, C, H, W) float32 -> ``logits``, N free.

    Args:
        network: its quantization plan determines how the file stores and runs it; float32 without a plan.
        path: of the file, which is written atomically.
        images: normalized training images, (N, C, H, W) float32: an example input, and the calibration set.
        metadata: stored in the file's ``metadata_props``, with a note on the quantization.

    Raises:
        SlimsearchError: the network cannot be exported to ONNX or quantized.
    """
    import onnx

    plan = network.quantization
    # The plan's layers are found by the names of their weights, which the exporter's folding changes.
    if plan is not None and (plan.learned or plan.keep_float not in KEPT_FLOAT):
        network = fold_batch_norm(network, images[:2])
        plan = network.quantization
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            with _quiet():
                _to_onnx(network, file, images[:2])
                if plan is not None and plan.form == STATIC:
                    file = to_int8(file, Path(folder), INPUT, images, plan)
                elif plan is not None:
                    onnx.save(store(onnx.load(str(file)), plan.form), str(file))
                _tidy(file, {**(metadata or {}), **({"quantization": plan.note} if plan is not None else {})})
        except Exception as error:  # the exporters raise many kinds
            raise SlimsearchError(f"export to ONNX failed: {describe_error(error)}") from error
        file.replace(path)


def _to_onnx(network: Network, file: Path, example: Tensor) -> None:
    import torch

    module = network.copy_module().eval().cpu().float()
    options: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "opset_version": _OPSET,
    }
    # Folding a BatchNorm would multiply the number of values of the codebook by the channels; the runtime folds it.
    codebook = network.quantization is not None and network.quantization.form == CODEBOOK
    mode = torch.onnx.TrainingMode.PRESERVE if codebook else torch.onnx.TrainingMode.EVAL
    example = example.contiguous()
    try:
        # The TorchScript exporter takes a tenth of the time of the newer one and writes half the bytes.
        axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
        torch.onnx.export(module, (example,), str(file), dynamo=False, dynamic_axes=axes, training=mode, **options)
    except Exception as first:
        shapes = ({0: torch.export.Dim("batch")},)
        try:
            torch.onnx.export(
                module, (example,), str(file), dynamo=True, external_data=False, dynamic_shapes=shapes, **options
            )
        except Exception:  # the older exporter's message names the operator
            raise first from None


def _tidy(file: Path, metadata: Mapping[str, str]) -> None:
    """Remove stack traces, source paths and notes from the file, and add `metadata`."""
    import onnx

    model = onnx.load(str(file))
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node} | {function.domain for function in model.functions} | {""}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' prints and warnings."""
    import torch

    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    # The older exporter prints the graph of an unknown operation from C++, even if not verbose.
    log = getattr(torch._C, "_jit_onnx_log", None)
    if log is not None:
        torch._C._jit_onnx_log = lambda *message: None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if log is not None:
            torch._C._jit_onnx_log = log
