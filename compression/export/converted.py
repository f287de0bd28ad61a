"""Files for LiteRT and ExecuTorch, converted from the network in PyTorch.

Boards run this module too, see `slimsearch.evaluators.latency.boards`: it imports PyTorch and the converters
when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.runtimes import SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor

    from slimsearch.compression._network import Network
    from slimsearch.compression._recipe import Recipe
    from slimsearch.compression.quantization.plan import Quantization

_FORMS: dict[str, tuple[str, ...]] = {"litert": ("static",), "executorch": ()}
"""The values of `Quantization.form` that files of a runtime can have."""
_REASONS = {
    "litert": "LiteRT's quantizer makes int8 of the weights of all layers (quantize, qat, lsq, lsq_plus, dorefa)",
    "executorch": "its files are in float32",
}
LAYER_OPTIONS = ("keep_float", "max_drop", "mean_bits", "bits")
"""Options of quantizing stages that converted files cannot have: formats of single layers, and fewer bits than 8."""


def runtime_of(path: Path) -> str | None:
    """The runtime of a converted file; None for an ONNX file."""
    return next((runtime for runtime, suffix in SUFFIXES.items() if path.suffix == suffix), None)


def unsupported(recipe: Recipe, runtime: str) -> str | None:
    """What files of a runtime cannot have of a recipe, with the reason, or None.

    Plans of users' stages are only known once they are applied, see `check_plan`.
    """
    for one in recipe.stages if runtime in SUFFIXES else ():
        form = one.stage.form
        if form is None:
            continue
        if form not in _FORMS[runtime]:
            return f"{one.name}: {_REASONS[runtime]}"
        for option in LAYER_OPTIONS:
            value = getattr(one.stage, option, None)
            if value != getattr(type(one.stage), option, None):  # the default
                return f"{one.name}:{option}={value}: {_REASONS[runtime]}"
    return None


def check_plan(plan: Quantization | None, runtime: str) -> None:
    """Check that files of a runtime can have a plan.

    Raises:
        SlimsearchError: they cannot.
    """
    if runtime not in SUFFIXES or plan is None:
        return
    if plan.form not in _FORMS[runtime] or plan.keep_float != "none" or plan.bits or plan.fewer_bits:
        raise SlimsearchError(f"--runtime {runtime}: the network cannot be quantized like this: {_REASONS[runtime]}")


def convert(network: Network, path: Path, images: Tensor) -> None:
    """Write the file of a network for the runtime of the path's suffix; it takes one input at a time.

    A LiteRT file has int8 weights if the network has a quantization plan, by LiteRT's dynamic quantization: activations
    are quantized as they come. An ExecuTorch file is in float32, for XNNPACK.

    Args:
        network: has one input and one output.
        path: of the file, which is written in place.
        images: normalized inputs, (N, ...) float32, of which the first one is an example.

    Raises:
        SlimsearchError: the packages are missing, or the network cannot be expressed.
    """
    runtime = runtime_of(path)
    assert runtime is not None
    example = images[:1].contiguous()
    network = network.without_dead_taps(tuple(example.shape[1:]))
    (_to_litert if runtime == "litert" else _to_executorch)(network, path, example)


def _to_litert(network: Network, path: Path, example: Tensor) -> None:
    from slimsearch.compression.export.to_onnx import quiet

    with needs_extra("litert", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"), quiet(), silent():
        import litert_torch
        from ai_edge_quantizer import quantizer, recipe

        try:
            litert_torch.convert(network.copy_module().eval().cpu().float(), (example,)).export(str(path))
            if network.quantization is not None:
                again = quantizer.Quantizer(str(path))
                again.load_quantization_recipe(recipe.dynamic_wi8_afp32())
                path.write_bytes(bytes(again.quantize().quantized_model))
        except Exception as error:  # the converter raises exceptions of many types
            raise SlimsearchError(f"LiteRT cannot express it: {first_line(error)}") from error


def _to_executorch(network: Network, path: Path, example: Tensor) -> None:
    import torch

    from slimsearch.compression.export.to_onnx import quiet

    with needs_extra("executorch", "executorch"), quiet(), silent():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            program = torch.export.export(network.copy_module().eval().cpu().float(), (example,))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
            path.write_bytes(lowered.buffer)
        except Exception as error:  # the converter raises exceptions of many types
            raise SlimsearchError(f"ExecuTorch cannot express it: {first_line(error)}") from error


@contextmanager
def silent() -> Iterator[None]:
    """Discard what native code writes to standard error: remarks on every file. Errors are raised."""
    try:
        before = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def needs_extra(extra: str, *modules: str) -> Iterator[None]:
    """A context in which a missing package is one line.

    Raises:
        SlimsearchError: one of `modules` is not installed.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in modules:
            raise
        raise SlimsearchError(f"{extra} is not installed: pip install 'slimsearch[{extra}]'") from error
