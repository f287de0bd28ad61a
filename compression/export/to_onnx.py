"""Export of a network to its ONNX file: float32, or in the form of its quantization plan."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.compression._network import Network
from slimsearch.compression.export.agreement import (
    FixedBatchSize,
    check_agreement,
    example_of,
    logits_of,
    without_rounding,
)
from slimsearch.compression.export.branches import merge_branches
from slimsearch.compression.export.compact import compact
from slimsearch.compression.export.int8 import to_int8
from slimsearch.compression.export.norms import fold_norms
from slimsearch.compression.export.storage import store
from slimsearch.compression.quantization.folding import fold_batch_norm
from slimsearch.compression.quantization.plan import CODEBOOK, STATIC
from slimsearch.compression.quantization.rounding import round_weights, rounding_error
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.files import EXPORT_PREFIX
from slimsearch.packed import unpacked

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT, OUTPUT = "images", "logits"
# The lowest operator set that both exporters write, and the version of the file format that came with it.
_OPSET, _IR_VERSION = 18, 8


def export_onnx(network: Network, path: Path, images: Tensor, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network` to `path` as one ONNX file, ``images`` (N, C, H, W) float32 -> ``logits``, N free.

    A `PackedModule` with several inputs or outputs becomes a file with these inputs and outputs, by their names.

    The file has no dead taps (see `Network.without_dead_taps`), since it is for images of one size, and no parallel
    linear branches (see `merge_branches`), unless its quantization was learned. BatchNorms are folded into the layers
    before them.
    The float32 file is run in batches of several sizes and compared with the network.

    Args:
        network: its quantization plan determines how the file stores and runs it; float32 without a plan.
        path: of the file, which is written atomically.
        images: normalized training images, (N, C, H, W) float32: an example input, and the calibration set.
        metadata: stored in the file's ``metadata_props``, with a note on the quantization.

    Raises:
        SlimsearchError: the network cannot be exported to ONNX or quantized, or its file would fix the batch size.
    """
    import onnx

    network = network.without_dead_taps(images.shape[1:])
    plan = network.quantization
    expected = None
    if plan is not None and plan.names_layers:
        network = fold_batch_norm(network, images[:2])
        if plan.bits:
            network = round_weights(network, images)
            expected = None if plan.clips else logits_of(network.module, images)
        plan = network.quantization
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=EXPORT_PREFIX) as folder:
        file = Path(folder) / "model.onnx"
        try:
            with quiet():
                float_file(network, file, images)
                if plan is not None and plan.form == STATIC:
                    file = to_int8(file, Path(folder), images, plan)
                elif plan is not None:
                    onnx.save(store(onnx.load(str(file)), plan.form, plan.learned), str(file))
                notes = {"quantization": plan.note} if plan is not None else {}
                tidy(file, {**(metadata or {}), **notes})
                if plan is not None:
                    content = file.read_bytes()
                    check_agreement(content, images, None, quantized=True)
                    if expected is not None:
                        error = functools.partial(rounding_error, network, images)
                        check_agreement(without_rounding(content), images, expected, quantized=True, rounding=error)
        except SlimsearchError as error:
            raise SlimsearchError(f"export to ONNX failed: {error}") from error
        except Exception as error:  # the exporters raise many kinds
            raise SlimsearchError(f"export to ONNX failed: {describe_error(error)}") from error
        file.replace(path)


def float_file(network: Network, file: Path, images: Tensor) -> None:
    """Write the float32 file by the first exporter whose file agrees with the network.

    The TorchScript exporter takes a tenth of the time of the newer one and writes half the bytes. The newer one can
    analyze the module's bytecode ("strict"), and then keeps a batch size free that is used as a Python number.
    """
    import onnx

    from slimsearch.packed_module import PackedModule

    module = network.copy_module().eval().cpu().float()
    example, expected, plan = (example_of(images),), logits_of(module, images), network.quantization
    if isinstance(module, PackedModule):
        module.separate = True
        if module.inputs:
            example = tuple(unpacked(example[0], module.inputs).values())
    failures: list[Exception] = []
    for write in (_by_torchscript, _by_torch_export, functools.partial(_by_torch_export, strict=True)):
        try:
            write(module, example, file, plan is not None and plan.form == CODEBOOK)
            if plan is None or not (plan.names_layers or plan.form == CODEBOOK):
                exported = onnx.load(str(file))  # without a plan that needs the layers' names or values
                if merge_branches(exported) + fold_norms(exported):
                    onnx.save(exported, str(file))
            check_agreement(file.read_bytes(), images, expected, quantized=plan is not None)
            return
        except Exception as error:  # the exporters raise many kinds
            failures.append(error)
    # The oldest exporter's message names the operator.
    raise next((error for error in failures if isinstance(error, FixedBatchSize)), failures[0]) from None


def _by_torchscript(module: nn.Module, example: tuple[Tensor, ...], file: Path, codebook: bool) -> None:
    import torch

    # Folding a BatchNorm would multiply the number of values of the codebook by the channels; the runtime folds it.
    mode = torch.onnx.TrainingMode.PRESERVE if codebook else torch.onnx.TrainingMode.EVAL
    options = _options(module)
    axes = {name: {0: "batch"} for name in (*options["input_names"], *options["output_names"])}
    torch.onnx.export(module, example, str(file), dynamo=False, dynamic_axes=axes, training=mode, **options)


def _by_torch_export(
    module: nn.Module, example: tuple[Tensor, ...], file: Path, codebook: bool, *, strict: bool = False
) -> None:
    import torch

    from slimsearch.packed_module import PackedModule

    batch = {0: torch.export.Dim("batch")}
    shapes = (tuple(batch for _ in example),) if isinstance(module, PackedModule) else (batch,)
    try:
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=strict)
    except torch._dynamo.exc.UserError as error:
        if "Constraints violated" in str(error):
            raise FixedBatchSize from error
        raise
    torch.onnx.export(
        program, example, str(file), dynamo=True, external_data=False, optimize=not codebook, **_options(module)
    )


def _options(module: nn.Module) -> dict[str, Any]:
    """What both exporters are given: names, and the operator set."""
    from slimsearch.packed_module import PackedModule

    inputs, outputs = [INPUT], [OUTPUT]
    if isinstance(module, PackedModule):
        inputs = [name for name, _ in module.inputs] or inputs
        outputs = [name for name, _ in module.outputs] or outputs
    return {"input_names": inputs, "output_names": outputs, "opset_version": _OPSET}


def tidy(file: Path, metadata: Mapping[str, str]) -> None:
    """Remove stack traces, source paths and notes from a file, shorten names, and set its metadata."""
    import onnx

    model = onnx.load(str(file))
    model.ir_version = _IR_VERSION
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
    compact(model)
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' prints, warnings and logs: what failed is raised."""
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
