"""What a training frees stays in the process while it goes on, and no longer."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

_STEPS = """
import contextlib, resource, sys
import torch
from slimsearch.evaluators.training.freed_memory import freed_memory_kept
torch.set_num_threads(1)
with freed_memory_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    def step():
        return [torch.ones(2**20, 12).relu() for _ in range(2)]  # 48 MiB each
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_no_page_is_asked_for_twice_and_all_are_given_back() -> None:
    def run(way: str) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", _STEPS, way], capture_output=True, text=True, check=True)
        faults, mebibytes = map(int, done.stdout.split())
        return faults, mebibytes

    (faults, resident), (faults_by_default, resident_by_default) = run("kept"), run("default")
    step = 4 * 48 * 2**20 // resource.getpagesize()
    assert faults < step < faults_by_default
    assert resident < resident_by_default + 48
