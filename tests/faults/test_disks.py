"""A disk that is full, and one that cannot be written to: the run ends in a line, and goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.counts import Counts
from tests.faults.processes import Process, ended, errors, finished, states

pytestmark = pytest.mark.faults

WORDS = (
    "--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "8", "--compress", "none", "--workers", "1"
)  # fmt: skip
ALL = ["complete"] * 6


def mount(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing more fits, not even a byte."""
    filler = disk / "filler"
    size = 2**20
    with filler.open("wb", buffering=0) as file:
        while size:
            try:
                if file.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2
    return filler


@pytest.mark.parametrize("after", [0, 2])
def test_a_disk_that_becomes_full_ends_the_run_and_no_trial(
    after: int, disk: Path, tmp_path: Path, counts: Counts
) -> None:
    process = Process(disk, *WORDS, output=tmp_path)
    process.until(lambda: ended(process.run) >= after and list(process.run.glob("trials/*")))
    filler = fill(disk)
    assert process.end() == 2, process.said
    kept = finished(process.run)
    full = Process(disk, "--resume", "run", output=tmp_path)
    assert full.end() == 2, full.said
    filler.unlink()
    for failed in (process, full):
        (line,) = errors(failed.said)
        assert "No space left on device" in line
        assert "what was finished is kept, go on with --resume" in line or failed is full
    again = Process(disk, "--resume", "run", output=tmp_path)
    assert again.end() == 0, again.said
    assert states(process.run) == ALL
    found = finished(process.run)
    assert {number: found[number] for number in kept} == kept
    counts.add("faults injected", 2)


def test_a_run_directory_that_is_read_only(disk: Path, tmp_path: Path, counts: Counts) -> None:
    process = Process(disk, *WORDS, output=tmp_path)
    process.until(lambda: ended(process.run) >= 1)
    process.kill()
    assert process.left(10) == []  # a disk to which somebody writes cannot be made read-only
    journal = (process.run / "study.journal").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        refused = Process(tmp_path, "--resume", str(process.run))
        assert refused.end() == 2, refused.said
        assert errors(refused.said) == [
            f"error: cannot write to the run directory '{process.run}': Read-only file system"
        ]
        (tmp_path / "elsewhere").mkdir()
        new = Process(tmp_path / "elsewhere", *WORDS, "--run-dir", str(disk / "new"))
        assert new.end() == 2, new.said
        assert errors(new.said) == [f"error: cannot create the run directory '{disk / 'new'}': Read-only file system"]
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert (process.run / "study.journal").read_bytes() == journal
    again = Process(disk, "--resume", "run", output=tmp_path)
    assert again.end() == 0, again.said
    assert states(process.run) == ALL
    counts.add("faults injected", 2)
