"""docs/detection.md: its task keeps the laws of tasks, and its search ends with a small file that finds the digits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from slimsearch.testing import LearningTaskContract
from tests.conftest import ROOT, environment

SCRIPT = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "detection.md").read_text(encoding="utf-8"), re.S | re.M
)[0]
MODULE = ModuleType("my_detection")
sys.modules["my_detection"] = MODULE  # where its dataclass looks for annotations
exec(compile(SCRIPT, "my_detection.py", "exec"), vars(MODULE))


class TestDetection(LearningTaskContract):
    task = MODULE.Detection()
    targets = MODULE.scattered(90, seed=2)[1]
    input_shape = (1, MODULE.SIDE, MODULE.SIDE)


@pytest.mark.slow
def test_pruned_int8_files_find_digits(tmp_path: Path) -> None:
    (tmp_path / "my_detection.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "my_detection.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\[.*?\]) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)$", done.stdout, re.M)
    found = {recipe: [float(number) for number in numbers] for recipe, *numbers in rows}
    print("\n".join(f"{recipe}: {numbers}" for recipe, numbers in found.items()))
    small = found["['prune', 'quantize']"]
    parent = max(numbers for recipe, numbers in found.items() if recipe == "[]")
    assert parent[0] > 0.8
    assert 100 * (parent[0] - small[0]) <= 1.0
    assert parent[2] / small[2] >= 2
