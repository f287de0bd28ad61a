"""Two processes and one run directory: one has it, the other one says so, and neither disturbs the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.counts import Counts
from tests.faults.processes import Process, ended, errors, states

pytestmark = pytest.mark.faults

WORDS = ("--space", TINY, "--dataset", "digits", "--run-dir", "run", "--epochs", "4", "--compress", "none")
REFUSED = (
    "run directory 'run' is in use by another process", "--run-dir 'run' exists already; continue it with --resume run"
)  # fmt: skip


def test_one_has_it_and_the_others_are_told(tmp_path: Path, counts: Counts) -> None:
    first = Process(tmp_path, *WORDS, "--workers", "1")
    first.until(lambda: ended(first.run) >= 1)
    second, third = Process(tmp_path, "--resume", "run"), Process(tmp_path, *WORDS)
    for other, said in zip((second, third), REFUSED, strict=True):
        assert other.end() == 2, other.said
        assert errors(other.said) == [f"error: {said}"]
    assert first.end() == 0, first.said
    assert states(first.run) == ["complete"] * 6
    counts.add("faults injected", 2)


def test_of_two_that_begin_at_once_one_does(tmp_path: Path, counts: Counts) -> None:
    both = [Process(tmp_path, *WORDS, "--workers", "1") for _ in range(2)]
    assert sorted(process.end() for process in both) == [0, 2], [process.said for process in both]
    (refused,) = (process for process in both if process.end() == 2)
    (line,) = errors(refused.said)
    assert any(said in line for said in REFUSED)
    assert states(both[0].run) == ["complete"] * 6
    counts.add("faults injected")
