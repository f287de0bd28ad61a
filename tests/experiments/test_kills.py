"""kill -9 again and again, at random moments of a real run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TINY, environment
from tests.experiments.test_command_line import recorded


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_six_times_and_finished(seed: int, tmp_path: Path) -> None:
    """No finished trial is lost, repeated or changed; afterwards the run is as complete as any other."""
    words = ["--space", TINY, "--dataset", "digits", "--epochs", "40", "--run-dir", "run", "--seed", str(seed)]
    moments = random.Random(seed)
    kept: dict[int, dict[str, object]] = {}
    begun = False
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.main", "run", *(["--resume", "run"] if begun else words)],
            cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(moments.uniform(4, 16))
        process.kill()
        process.wait()
        begun = (tmp_path / "run" / "config.yaml").exists()
        if (tmp_path / "run" / "study.journal").exists():
            now = recorded(tmp_path / "run")
            assert {number: now[number] for number in kept} == kept
            kept = now
        time.sleep(1)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.main", "run", *(["--resume", "run"] if begun else words)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = recorded(tmp_path / "run")
    assert {number: after[number] for number in kept} == kept
    searched = [json.dumps(t["params"], sort_keys=True) for t in after.values() if t["kind"] == "search"]
    assert len(searched) == len(set(searched)) == 6
    models = json.loads((tmp_path / "run" / "top_models.json").read_text())
    assert all((tmp_path / "run" / model["artifact"]).is_file() for model in models)
