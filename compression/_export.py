"""From a network to the one file that is deployed: ONNX, float32 or int8 with QDQ operators."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compression._network import Network, Quantization
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

INPUT, OUTPUT = "images", "logits"
_OPSET = 17


def export(network: Network, path: Path, images: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network` to `path` as one ONNX file, ``images`` (N, C, H, W) float32 -> ``logits``, N free.

    Args:
        network: what to export; a quantization plan makes the file int8.
        path: written whole or not at all.
        images: (N, C, H, W) float32, normalised training images: an example input, and the calibration set.
        metadata: recorded in the file's ``metadata_props``, nothing else is.

    Raises:
        SlimsearchError: the network cannot be expressed in ONNX, or not be quantized.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            with _quiet():
                _to_onnx(network, file, images[:2])
                if network.quantization is not None:
                    file = _to_int8(file, Path(folder), images, network.quantization)
                _tidy(file, dict(metadata or {}))
        except Exception as error:  # the exporters raise anything
            first_line = str(error).strip().partition("\n")[0]
            raise SlimsearchError(f"export to ONNX failed: {type(error).__name__}: {first_line}") from error
        file.replace(path)


def _to_onnx(network: Network, file: Path, example: Tensor) -> None:
    import torch

    module = network.copy_module().eval().cpu().float()
    options: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "opset_version": _OPSET,
    }
    example = example.contiguous()
    try:
        # The TorchScript exporter: a tenth of the time and half the bytes of the newer one (stack traces).
        axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
        torch.onnx.export(module, (example,), str(file), dynamo=False, dynamic_axes=axes, **options)
    except Exception as first:
        shapes = ({0: torch.export.Dim("batch")},)
        try:
            torch.onnx.export(
                module, (example,), str(file), dynamo=True, external_data=False, dynamic_shapes=shapes, **options
            )
        except Exception:  # the older exporter's reason is the one that names the operator
            raise first from None


def _to_int8(file: Path, folder: Path, images: Tensor, plan: Quantization) -> Path:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = iter(images.numpy()[start : start + 64] for start in range(0, len(images), 64))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            batch = next(batches, None)
            return None if batch is None else {INPUT: batch}

    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    quantize_static(
        str(prepared),
        str(quantized),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=plan.per_channel,
        reduce_range=plan.target == "any",
        calibrate_method=methods[plan.calibration],
    )
    return quantized


def _tidy(file: Path, metadata: Mapping[str, str]) -> None:
    """Leave nothing in the file that does not belong there: stack traces, source paths, notes."""
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
    """The exporters print and warn about themselves; what matters they raise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
