"""Device, threads and number format of training on this machine."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slimsearch.compression import Network
from slimsearch.errors import SlimsearchError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

# Minimum MACs per output element; above it, bfloat16 was not slower in any network that was measured.
_DENSE = 10.0
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "bad allocation", "bad_alloc", "ALLOC_FAILED")


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """A context in which running out of memory, also that of a GPU, is one line that says what would need less.

    Raises:
        SlimsearchError: memory runs out in this context.
    """
    try:
        yield
    except (MemoryError, RuntimeError, SlimsearchError) as error:
        found = next((one for one in (error, error.__cause__) if one is not None and _is_lack_of_memory(one)), None)
        if found is not None:
            raise SlimsearchError(
                f"out of memory ({first_line(found)}); pass a smaller --image-size or --batch-size, or fewer --workers"
            ) from error
        raise


def _is_lack_of_memory(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return any(sign in first_line(error) for sign in _OUT_OF_MEMORY)


def device_for(name: str) -> str:
    """The device to train on, "cpu" or "cuda"; "auto" takes CUDA if it is available.

    Raises:
        SlimsearchError: the name is unknown, or "cuda" is asked for and not available.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise SlimsearchError(f"device {name!r} is unknown; known: auto, cpu, cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SlimsearchError("--device cuda: PyTorch finds no CUDA device; use cpu or auto")
    return name


@contextlib.contextmanager
def computing_on(device: str) -> Iterator[None]:
    """A context of a training: a GPU computes the same each time, and has its memory free for others afterwards."""
    import torch

    if device == "cpu":
        yield
        return
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    torch.cuda.empty_cache()  # of a training that failed, whose tensors its exception held
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
        torch.cuda.empty_cache()


def use_one_thread() -> None:
    """Limit PyTorch to one thread in this process: workers share the machine, and idle OpenMP threads spin."""
    import torch

    torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run PyTorch's operators on `count` threads within this context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor() -> tuple[str, list[str]]:
    """The processor's model name, and its vector and matrix instruction sets."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    stripped = {name.strip(): value.strip() for name, value in fields.items()}
    flags = stripped.get("flags", "").split()
    return stripped.get("model name", platform.machine()), [flag for flag in _FLAGS if flag in flags]


def precision_for(name: str, device: str) -> str:
    """The precision of training: "fp32", "bf16", or "mixed" (`network_precision` decides for each network).

    Args:
        name: one of these, or "auto": "mixed" on a CPU that multiplies bfloat16 natively, "bf16" on such a GPU.
        device: "cpu" or "cuda".
    """
    if name != "auto":
        return name
    import torch

    if device == "cuda":
        here = torch.cuda.is_available()  # or on another machine of a cluster
        return "bf16" if not here or torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = any(
        bool(getattr(torch.cpu, flag, bool)()) for flag in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "mixed" if native else "fp32"


def network_precision(precision: str, network: Network, images: Tensor) -> str:
    """Replace "mixed" by the precision in which `network` trains faster, "fp32" or "bf16"; others stay.

    Matrix products are up to twice as fast in bfloat16. Normalization, activations and depthwise convolutions gain
    nothing and pay for conversions.

    Args:
        precision: see `precision_for`.
        network: is left in evaluation mode.
        images: (N, C, H, W) float32; only the shape matters.
    """
    if precision != "mixed":
        return precision
    import torch

    elements = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal elements
        elements += output.numel() if isinstance(output, torch.Tensor) else 0

    leaves = [layer for layer in network.module.modules() if next(layer.children(), None) is None]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        return "bf16" if network.macs(images) >= _DENSE * elements else "fp32"
    finally:
        for hook in hooks:
            hook.remove()


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a network runs in "fp32" or "bf16"."""
    import torch

    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
