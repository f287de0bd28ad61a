"""A small real run to damage, and the number of inputs: few by default, many with ``-m faults``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, environment
from tests.counts import Counts
from tests.inputs.tried import INPUTS_TRIED, Effort, few, many


@pytest.fixture(params=[pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.faults)])
def effort(request: pytest.FixtureRequest) -> Effort:
    chosen: Effort = request.param
    return chosen


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two candidates, of which one was quantized."""
    folder = tmp_path_factory.mktemp("small")
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "1", "--trials", "2", "--top-k", "1", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words, "--compress", "quantize", "--run-dir", "run"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def a_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to damage."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """A folder with a file of the user's: no new run may begin in it."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    return tmp_path / "taken"


@pytest.fixture(scope="session", autouse=True)
def counted(counts: Counts) -> Iterator[None]:
    yield
    if INPUTS_TRIED:
        counts.add("inputs tried", sum(INPUTS_TRIED.values()))
