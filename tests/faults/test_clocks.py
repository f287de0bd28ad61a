"""A system clock that is put forward and back while a run goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import TINY, environment
from tests.counts import Counts
from tests.faults.processes import Process, ended, finished

pytestmark = pytest.mark.faults

# In front of the C library: the clock that can be set, and as many seconds more as a file says. Those that only go
# forward are not touched.
PRELOADED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    char text[32] = {0};
    int file = open(getenv("CLOCK"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t count = read(file, text, sizeof text - 1);
    close(file);
    return count > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
HOUR = 3600


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("jumps", [(960 * HOUR, -9600 * HOUR), (-3 * HOUR, 3 * HOUR)])
def test_a_clock_that_jumps(jumps: tuple[int, int], tmp_path: Path, counts: Counts) -> None:
    """No trial is ended by --trial-timeout, and what each took is what it took."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(PRELOADED)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    process = Process(
        tmp_path, "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "6", "--workers", "1",
        "--compress", "quantize", "--top-k", "1", "--trial-timeout", "120",
        env={**environment(), "LD_PRELOAD": str(library), "CLOCK": str(clock)},
    )  # fmt: skip
    for done, jump in enumerate(jumps, start=1):
        assert process.until(lambda: ended(process.run) >= done), process.said  # noqa: B023
        part = tmp_path / "part"
        part.write_text(str(jump))
        os.replace(part, clock)
    assert process.end() == 0, process.said
    trials = finished(process.run)
    assert [t["result"]["state"] for t in trials.values()][:6] == ["complete"] * 6
    assert all(0 < t["result"]["seconds"] < 120 for t in trials.values())
    hours = re.findall(r'"datetime_start":"([-\dT]+):', (process.run / "study.journal").read_text())
    assert hours != sorted(hours), "the clock was put back"
    counts.add("faults injected", len(jumps))
