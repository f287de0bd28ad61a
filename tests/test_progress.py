"""Progress of long steps: on a terminal and nowhere else, one line that is gone afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import nbclient
import nbformat
import pytest

from slimsearch.progress import counted, current_step, duration, progress
from tests.conftest import ROOT, environment

STEPS = """
import sys, time
from slimsearch.progress import counted, progress
with progress("outer"):
    for _ in counted("parts", range(4), 4):
        time.sleep(0.5)
print("done")
"""


def on_a_terminal(words: list[str], columns: int, folder: Path = ROOT, *, timeout: float = 600) -> tuple[int, str]:
    """The exit code of a command on a terminal of so many columns, and all that it has written."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        variables = {name: value for name, value in environment().items() if name != "COLUMNS"} | {"TERM": "xterm"}
        process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=variables)
        os.close(theirs)
        written, deadline = b"", time.monotonic() + timeout
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    read = os.read(ours, 1 << 16)
                except OSError:  # the other end is closed
                    break
                written += read
                if not read:
                    break
        return process.wait(timeout=60), written.decode()
    finally:
        os.close(ours)


def test_a_line_that_is_gone_afterwards() -> None:
    code, text = on_a_terminal([sys.executable, "-c", STEPS], 30)
    assert code == 0
    drawn = re.findall(r"\x1b\[2K([^\r\x1b]*)", text)
    assert drawn[-1].strip() == "done", "nothing is left of the progress before it"
    lines = [line for line in drawn[:-1] if line]
    assert all(len(line) < 30 for line in lines)
    assert any(re.match(r"parts: [1-3] of 4, about 0:0[12] ", line) for line in lines), lines


def test_nothing_in_a_file() -> None:
    process = subprocess.run(
        [sys.executable, "-c", STEPS], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert (process.stdout, process.stderr) == ("done\n", "")


@pytest.mark.slow
def test_in_a_notebook() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(STEPS)])
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = {output["output_type"]: output for output in notebook.cells[0].outputs}
    assert shown["stream"]["text"] == "done\n"
    assert shown["display_data"]["data"] == {"text/plain": ""}, "it was there, and is empty afterwards"


def test_steps_within_steps() -> None:
    assert current_step() == ""
    with progress("outer\x1b[2J") as advance:
        assert "\x1b" not in current_step()
        for value in counted("inner", "ab", 2):
            assert current_step().startswith("inner: ")
            if value == "b":
                break
        advance()
        assert current_step().startswith("outer")
    assert current_step() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (62, "1:02"), (3725, "1:02:05")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
