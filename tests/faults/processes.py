"""Runs in processes of their own, to which things are done while they go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import environment, recorded

PATIENCE = 300.0
"""Seconds within which everything here happens, on a machine that has other things to do too."""

FORK_SERVER = "multiprocessing.forkserver"


class Process:
    """A run's main process, its workers its children, in a session of its own as under a terminal.

    Args:
        folder: where it is begun; the run directory is ``run`` in there.
        words: of the command line after ``run``.
        command: in place of Slimsearch's command line.
        env: of the process.
        output: a folder for what it prints, in place of `folder`.
    """

    def __init__(
        self, folder: Path, *words: str, command: Sequence[str] = (), env: dict[str, str] | None = None,
        output: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.run = folder, folder / "run"
        self.output = (output or folder) / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("wb") as printed:
            self._process = subprocess.Popen(
                [*(command or (sys.executable, "-m", "slimsearch.cli.main", "run")), *words], cwd=folder,
                env=env or environment(), stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def said(self) -> str:
        """What it has printed so far, errors too."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    def end(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it has one."""
        return self._process.wait(seconds)

    def until(self, condition: Callable[[], object]) -> bool:
        """Wait for something to happen; False: the process was over before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.over:
                return bool(condition())
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        """Kill -9, of the main process alone; its workers end by themselves, see `left`."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> None:
        """Ctrl-C in its terminal, which sends a signal to all of its processes."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just come to its end
                process.send_signal(signal.SIGINT)

    def processes(self) -> list[psutil.Process]:
        """Itself and all that it has started."""
        try:
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def left(self, seconds: float) -> list[int]:
        """What it has started and is still there after so many seconds, also processes whose parent is not."""
        deadline = time.monotonic() + seconds
        while (found := self._session()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _session(self) -> list[int]:
        self._process.poll()  # one that nobody has waited for is still listed
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if os.getsid(pid) == self.pid:
                    found.append(pid)
        return found

    def workers(self) -> list[psutil.Process]:
        """Its worker processes: forks of a child of its own."""
        forked = [process for process in self.processes()[1:] if FORK_SERVER in "".join(_command(process))]
        return [process for process in forked if _parent(process) != self.pid]


def finished(run: Path) -> dict[int, dict[str, Any]]:
    """The finished trials of a run, by number, as any Optuna program reads them; empty before there is a study."""
    journal = run / "study.journal"
    if not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        return {}
    return recorded(run)


def ended(run: Path, state: str = "complete") -> int:
    """How many trials the journal has that came to this end; cheap."""
    journal = run / "study.journal"
    return journal.read_bytes().count(b'{"result":{"state":"%s"' % state.encode()) if journal.exists() else 0


def states(run: Path) -> list[str]:
    """Of all finished trials, by number."""
    return [trial["result"]["state"] for _, trial in sorted(finished(run).items())]


def errors(said: str) -> list[str]:
    """The lines with which a command ends that was refused; a traceback is no such line."""
    assert "Traceback" not in said, said
    return [line for line in said.splitlines() if line.startswith("error: ")]


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
