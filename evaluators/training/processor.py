"""What this machine offers to training, read from its flags: the same answer every time."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path

from slimsearch.errors import SlimsearchError

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def device_for(name: str) -> str:
    """The device to train on, "cpu" or "cuda"; "auto" takes CUDA where there is one.

    Raises:
        SlimsearchError: CUDA is asked for and there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SlimsearchError("--device cuda: this PyTorch sees no CUDA device; use cpu or auto")
    return name


def use_one_thread() -> None:
    """Keep this process to one thread: workers share the machine, and OpenMP threads that wait spin."""
    import torch

    torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch's operators on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor() -> tuple[str, list[str]]:
    """Its model, and which instructions of interest it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    stripped = {name.strip(): value.strip() for name, value in fields.items()}
    flags = stripped.get("flags", "").split()
    return stripped.get("model name", platform.machine()), [flag for flag in _FLAGS if flag in flags]
