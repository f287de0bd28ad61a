"""docs/adding.md, followed literally: its files are written into a folder, and its commands are run there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run, environment

PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8").partition("\n## When it is to be part")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.S | re.M)
COMMANDS = [text.strip() for language, text in BLOCKS if language == "sh"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for language, text in BLOCKS:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name is not None, "a Python block carries no file name"
            (tmp_path / name[1]).write_text(text)
    return tmp_path


_RUNS = [command for command in COMMANDS if command.startswith("slimsearch ")]


@pytest.mark.parametrize("command", [_RUNS[0], *(pytest.param(run, marks=pytest.mark.slow) for run in _RUNS[1:])])
def test_commands_of_slimsearch(command: str, run: Run, folder: Path) -> None:
    _, name, *words = command.split()
    done = run(*words, "--run-dir", "run", command=name)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "top_models.json").exists()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow) if re.search("pytest|my_data", command) else command
        for command in COMMANDS
        if command.startswith("python ")
    ],
)
def test_commands_of_python(command: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command.split()[1:]],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_plug_in_is_tested_on_the_page(folder: Path) -> None:
    files = {path.name for path in folder.glob("*.py")}
    assert {name for name in files if name.startswith("test_")} == {
        f"test_{name}" for name in files if not name.startswith("test_")
    }
    assert all(command.startswith(("slimsearch ", "python ")) for command in COMMANDS)
