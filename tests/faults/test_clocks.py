"""A system clock that is put forward and back while a run goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, environment
from tests.counts import Counts
from tests.faults.processes import Process, ended, finished

pytestmark = pytest.mark.faults

_LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1")) if shutil.which("faketime") else []


@pytest.mark.skipif(not _LIBRARIES, reason="needs Debian's faketime")
@pytest.mark.parametrize("jumps", [("+40d", "-400d"), ("-3h", "+3h")])
def test_a_clock_that_jumps(jumps: tuple[str, str], tmp_path: Path, counts: Counts) -> None:
    """No trial is ended by --trial-timeout, and what each took is what it took."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    process = Process(
        tmp_path, "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "6", "--workers", "1",
        "--compress", "quantize", "--top-k", "1", "--trial-timeout", "120", env={**environment(), **fake},
    )  # fmt: skip
    for done, jump in enumerate(jumps, start=1):
        assert process.until(lambda: ended(process.run) >= done)  # noqa: B023
        part = tmp_path / "part"
        part.write_text(jump)
        os.replace(part, clock)
    assert process.end() == 0, process.said
    trials = finished(process.run)
    assert [t["result"]["state"] for t in trials.values()][:6] == ["complete"] * 6
    assert all(0 < t["result"]["seconds"] < 120 for t in trials.values())
    days = {line.partition("T")[0] for line in (process.run / "study.journal").read_text().split('"datetime_')[1:]}
    assert len(days) > 1 or "h" in jumps[0], "the clock did jump"
    counts.add("faults injected", len(jumps))
