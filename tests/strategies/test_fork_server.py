"""Where worker processes come from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from slimsearch.strategies._pool import fork_server as _fork_server
from tests.conftest import ROOT


def tell(line: Connection, environment: dict[str, str]) -> None:
    """In the process: what it finds."""
    line.send(
        {
            "parent": os.getppid(),
            "imported": set(sys.modules),
            "directory": os.getcwd(),
            "environment": environment,
        }
    )  # fmt: skip


def _found() -> dict[str, Any]:
    import multiprocessing

    here, there = multiprocessing.Pipe()
    process = _fork_server.start(tell, (there,))
    found: dict[str, Any] = here.recv()
    process.join()
    assert process.exitcode == 0
    return found


def test_all_come_from_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = _found()
    monkeypatch.setenv("SLIMSEARCH_TEST", "there")
    monkeypatch.chdir(tmp_path)
    other = _found()
    assert one["parent"] == other["parent"]
    assert psutil.Process(one["parent"]).ppid() == os.getpid()
    assert "slimsearch.strategies._pool.worker" in one["imported"]
    assert other["environment"]["SLIMSEARCH_TEST"] == "there"
    assert other["environment"]["OMP_NUM_THREADS"] == "1"
    assert other["directory"] == str(tmp_path)


SCRIPT = """
import os, sys, time
from slimsearch.strategies import begin_workers
from slimsearch.strategies._pool import fork_server as _fork_server

print("once")  # a script without a main guard
before = dict(os.environ)
begin_workers("slimsearch.evaluators._imports")
assert dict(os.environ) == before
print(_fork_server.forkserver._forkserver._forkserver_pid)
sys.stdout.flush()
{then}
"""


@pytest.mark.parametrize("then", ["", "raise SystemExit(2)", "os.kill(os.getpid(), 9)"])
def test_it_ends_with_the_driver(then: str) -> None:
    """Also one that has not finished its imports, and keeps nobody waiting who reads what the driver prints."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(then=then)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    once, pid = done.stdout.split()
    assert once == "once"
    deadline = time.monotonic() + 2
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    assert time.monotonic() - began < 60


def test_scripts_are_not_run_twice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import slimsearch\n"
        "print('begins', flush=True)\n"
        "def evaluate(candidate):\n"
        "    return {'loss': float(candidate['a'])}\n"
        "space = {'a': [1, 2, 3]}\n"
        "found = slimsearch.search(space, evaluate=evaluate, objectives='loss:min', trials=3, run_dir='run')\n"
        "print(found.top_models(1)[0]['architecture'])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begins") == 1
    assert done.stdout.splitlines()[-1] == "{'a': 1}"


def test_one_that_was_killed_is_begun_again() -> None:
    before = _found()["parent"]
    psutil.Process(before).kill()
    assert _found()["parent"] != before


def test_nothing_is_said_of_what_a_worker_leaves_behind(tmp_path: Path) -> None:
    """A lock of a module that is imported in a worker is no leak, which Python would complain of at the end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import slimsearch\n"
        "def evaluate(candidate):\n"
        "    import multiprocessing\n"
        "    evaluate.lock = multiprocessing.RLock()\n"
        "    return {'loss': float(candidate['a'])}\n"
        "slimsearch.search({'a': [1, 2]}, evaluate=evaluate, objectives='loss:min', trials=2, run_dir='run')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
