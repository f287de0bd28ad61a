"""Whatever a trial does, it is its own end alone: one clear line, and the others are finished."""

from __future__ import annotations

import json
import re
import time

import psutil
import pytest

from tests.conftest import ROOT
from tests.counts import Counts
from tests.faults.processes import Process, errors, finished

pytestmark = pytest.mark.faults

WAYS = f"{ROOT / 'tests' / 'faults' / 'wrong.py'}:Ways"
FIRST_STEP = "SlimsearchError: the network fails in training mode on 2 images of 1x8x8, float32, its only argument"
SAID = {
    "raises": f"{FIRST_STEP}: RuntimeError: it gave up",
    "badly": f"{FIRST_STEP}: Unspeakable",
    "exits": f"{FIRST_STEP}: SystemExit: enough",
    "interrupts": "KeyboardInterrupt",
    "hangs": "took longer than --trial-timeout 30 s",
    "nan": "SlimsearchError: the network cannot be trained: a logit is nan or infinity in the first step",
    "memory": ".*(can't allocate memory|MemoryError).*",
    "killed": r"its worker process died \(killed by SIGKILL: perhaps the machine's memory was used up\)",
    "crashes": r"its worker process died \(killed by SIGSEGV\)",
    "forks": r"its worker process died \(exit code 0\)",
    "closes": r"its worker process died \(.*\)",
    "export": "SlimsearchError: export to ONNX failed: .*bessel_j0.*",
}
WELL = {"well", "also_well", "prints"}
MEMORY_MIB = 1024


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Process:
    """A run in which everything goes wrong, at its end."""
    begun = Process(
        tmp_path_factory.mktemp("wrong"), "--space", WAYS, "--dataset", "digits", "--run-dir", "run", "--epochs", "1",
        "--trials", "15", "--sampler", "grid", "--workers", "2", "--retries", "0", "--trial-timeout", "30",
        "--compress", "none",
    )  # fmt: skip
    begun.most = 0  # type: ignore[attr-defined]
    while not begun.over:
        for found in begun.processes():
            try:
                begun.most = max(begun.most, found.memory_info().rss)  # type: ignore[attr-defined]
            except psutil.Error:
                continue
        time.sleep(0.1)
    return begun


def test_each_is_one_clear_line_and_the_others_are_finished(process: Process, counts: Counts) -> None:
    assert process.end() == 0, process.said
    assert errors(process.said) == []
    found = {json.loads(t["params"]["way"]): t["result"] for t in finished(process.run).values()}
    assert found.keys() == SAID.keys() | WELL
    for way, result in found.items():
        if way in WELL:
            assert result["state"] == "complete", (way, result)
            continue
        assert result["state"] == "failed", (way, result)
        assert re.fullmatch(SAID[way], result["error"]), (way, result["error"])
        assert process.said.count(f"way={way}  failed: {result['error']}") == 1, process.said
    counts.add("faults injected", len(SAID))


def test_a_gigabyte_that_is_printed_is_not_kept(process: Process, counts: Counts) -> None:
    """The log has its beginning and its end, the terminal nothing, and no process has it in memory."""
    number = next(n for n, t in finished(process.run).items() if json.loads(t["params"]["way"]) == "prints")
    log = (process.run / "trials" / f"{number:05d}" / "log.txt").read_bytes()
    assert len(log) <= 1.5 * 2**20
    assert log.startswith(b"the first line\nxxx")
    assert log.endswith(b"xxx\nthe last line\n")
    assert b"are not kept" in log
    assert len(process.said) < 20_000
    assert process.most < MEMORY_MIB * 2**20  # type: ignore[attr-defined]
    counts.add("faults injected")


def test_no_process_outlives_the_run(process: Process) -> None:
    """Not even the copy that a trial has made of its worker."""
    assert process.left(2) == []
