"""A whole run that many tests look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, environment


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole run on real digits: all six candidates of the tiny space, and compression."""
    folder = tmp_path_factory.mktemp("finished")
    words = [
        "--space",
        TINY,
        "--strategy",
        "optuna",
        "--dataset",
        "digits",
        "--epochs",
        "8",
        "--top-k",
        "3",
        "--run-dir",
        "run",
    ]
    process = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder / "run", process
