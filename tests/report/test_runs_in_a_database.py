"""Runs whose study is in a database: commands read it, and no command but a new run creates one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import slimsearch
from slimsearch.options.configuration import Configuration
from slimsearch.report.report_files import rewrite_reports
from tests.conftest import Run
from tests.databases import postgresql
from tests.report.test_report_page import GOLDEN
from tests.report.test_watch import in_database

ELSEWHERE = "postgresql://me:secret@elsewhere/studies"


def configure(**options: Any) -> None:
    """Change options of "run"."""
    path = Path("run", "config.yaml")
    Configuration.read(path).replace(**options).write(path)


@pytest.fixture
def read(run: Run, tmp_path: Path) -> Run:
    """The command line in a folder with the golden run, "golden", and the same with its study in a database, "run"."""
    in_database(tmp_path)
    shutil.copytree(GOLDEN, tmp_path / "golden")
    return run


def error(read: Run, *words: str) -> str:
    done = read(*words[1:], command=words[0])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line


def listed(read: Run, *words: str) -> dict[str, dict[str, Any]]:
    done = read(".", "--json", *words, command="ls")
    assert done.returncode == 0, done.stderr
    return {Path(entry["run"]).name: {**entry, "run": ""} for entry in json.loads(done.stdout)}


def test_they_are_listed_and_compared_as_others(read: Run) -> None:
    found = listed(read)
    assert found["run"] == found["golden"]
    done = read("run", "golden", "--json", "both.json", command="compare")
    assert done.returncode == 0, done.stderr
    both = json.loads(Path("both.json").read_text())
    one, other = ({**entry, "run": ""} for entry in both["runs"])
    assert one == other
    assert {member["run"] for member in both["joint_front"]} == {"run", "golden"}


def test_a_database_on_another_machine_is_named_again(read: Run) -> None:
    url = str(Configuration.read(Path("run", "config.yaml")).storage)
    configure(storage=ELSEWHERE)
    (folder := Path("run", "trials", "00000")).mkdir(parents=True)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), folder / "model.onnx")
    commands = ("compare golden run", "watch run", "report run", "dashboard run", f"explain {folder}")
    for words in map(str.split, commands):
        assert error(read, *words).endswith("add --storage postgresql://me:***@elsewhere/studies")
    with pytest.raises(slimsearch.SlimsearchError, match="add --storage"):
        slimsearch.plot("run", "front", "front.svg")
    assert listed(read)["run"]["state"] == "in a database"
    shown = read(".", command="ls").stdout
    assert "--storage" in shown
    assert "secret" not in shown

    assert listed(read, "--storage", url)["run"] == listed(read)["golden"]
    assert read("golden", "run", "--storage", url, command="compare").returncode == 0
    assert "cannot load the network" in error(read, "explain", str(folder), "--storage", url)
    assert rewrite_reports(Path("run"), storage=url).models
    assert slimsearch.plot("run", "front", "front.svg", storage=url).is_file()


def test_two_drivers_of_one_study_are_not_compared(read: Run) -> None:
    shutil.copytree("run", "again")
    assert "share a study" in error(read, "compare", "run", "again")


@pytest.mark.parametrize("command", ["watch", "dashboard", "compare", "report", "ls", "run --resume"])
def test_a_database_that_is_missing_is_refused_and_not_created(read: Run, command: str) -> None:
    folder = Path.cwd()

    def line() -> str:
        if command != "ls":
            return error(read, *command.split(), "run", *(["golden"] if command == "compare" else []))
        assert read(".", command="ls").returncode == 0
        return str(listed(read)["run"]["error"])

    if command != "dashboard":  # which shows all studies
        before = Path("study.db").read_bytes()
        configure(study="another")
        assert "there is no study 'another'" in line()
        assert Path("study.db").read_bytes() == before
    for name in ("gone.db", "folder/study.db"):
        configure(storage=f"sqlite:///{folder / name}")
        assert f"there is no file '{folder / name}'" in line()
        assert not Path(name).exists()
    Path("empty.db").touch()
    configure(storage=f"sqlite:///{folder}/empty.db")
    assert "there are no studies" in line()
    assert not Path("empty.db").stat().st_size


@pytest.mark.postgres
def test_an_empty_database_of_a_server_stays_empty(read: Run) -> None:
    with postgresql() as cluster:
        configure(storage=cluster.url())
        for _ in range(2):  # the second time, nothing of the first is there
            assert "there are no studies" in error(read, "compare", "run", "golden")
