"""Exclusive measurement: real processes that compute, measure and die."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimsearch.evaluators import Meter
from tests.conftest import ROOT, environment

COMPUTE = """
import sys, time
from pathlib import Path
from slimsearch.evaluators import Meter
meter, out = Meter(Path(sys.argv[1])), Path(sys.argv[2])
with meter.computing():
    out.write_text("computing")
    while True:
        time.sleep(0.002)
        meter.pause_if_measuring()
        with out.open("a") as file:
            file.write(".")
"""


def compute(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", COMPUTE, folder, out], cwd=ROOT, env=environment())
    while not out.exists() or out.stat().st_size < 12:
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_other_processes_pause_during_a_measurement(tmp_path: Path) -> None:
    workers = [compute(tmp_path / "locks", tmp_path / f"out{i}") for i in range(2)]
    try:
        meter = Meter(tmp_path / "locks")
        for _ in range(3):
            with meter.exclusive():
                sizes = [(tmp_path / f"out{i}").stat().st_size for i in range(2)]
                time.sleep(0.2)
                assert [(tmp_path / f"out{i}").stat().st_size for i in range(2)] == sizes
            time.sleep(0.2)
            assert all((tmp_path / f"out{i}").stat().st_size > sizes[i] for i in range(2))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_a_killed_process_releases_its_locks(tmp_path: Path) -> None:
    worker = compute(tmp_path / "locks", tmp_path / "out")
    worker.kill()
    worker.wait()
    started = time.monotonic()
    with Meter(tmp_path / "locks").exclusive():
        pass
    assert time.monotonic() - started < 1


def test_a_computing_process_can_measure(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    with meter.computing():
        with meter.exclusive():
            pass
        meter.pause_if_measuring()
    with meter.exclusive():
        pass


def test_the_wait_for_a_process_that_hangs_is_bounded(tmp_path: Path) -> None:
    hung = Meter(tmp_path)
    with hung.computing():
        started = time.monotonic()
        with Meter(tmp_path).exclusive(patience=0.3) as alone:
            assert not alone
        assert 0.3 <= time.monotonic() - started < 2
    with Meter(tmp_path).exclusive() as alone:
        assert alone


def test_later_waits_for_a_process_that_hangs_are_short(tmp_path: Path) -> None:
    hung, meter = Meter(tmp_path), Meter(tmp_path)
    with hung.computing():
        with meter.exclusive(patience=1.5) as alone:
            assert not alone
        started = time.monotonic()
        for one in (meter, Meter(tmp_path)):  # also of another process
            with one.exclusive(patience=60) as alone:
                assert not alone
        assert time.monotonic() - started < 5
    with meter.exclusive() as alone:
        assert alone
    with hung.computing():
        started = time.monotonic()
        with meter.exclusive(patience=1.5) as alone:
            assert not alone
        assert time.monotonic() - started >= 1.5  # in between, it had paused


MEASURE = """
import sys
from pathlib import Path
from slimsearch.evaluators import Meter
meter = Meter(Path(sys.argv[1]))
meter.owner = "run/trials/00007"
with meter.exclusive():
    print("measuring", flush=True)
    sys.stdin.read()
"""


def test_a_process_suspended_while_it_measures_is_named_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locks = tmp_path / "locks"
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURE, locks], cwd=ROOT, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"measuring\n"
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        meter = Meter(locks)
        with caplog.at_level(logging.WARNING), meter.computing():
            for _ in range(100):
                meter.pause_if_measuring()
            with meter.exclusive() as alone:
                assert not alone
        with Meter(locks).exclusive() as alone:
            assert not alone
        assert time.monotonic() - started < 20
        assert f"process {process.pid} (run/trials/00007) is suspended" in caplog.text
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        with meter.exclusive() as alone:
            assert alone
    finally:
        process.kill()
        process.wait()
