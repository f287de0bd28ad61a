"""A run directory that version 0.1.0 wrote must be read by every later version, to the last digit."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slimsearch.names import load_class
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, REJECTED, RULED_OUT
from slimsearch.report.report_files import write_reports
from slimsearch.report.stored_run import stored_run
from slimsearch.search_spaces import ModelSpace
from tests.conftest import environment

GOLDEN = Path(__file__).parent / "run_format_1"


def test_it_is_read_and_reported_as_it_was(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    with RunDirectory(path, create=False) as directory:
        configuration = Configuration.read(directory.config)
        ranking = Ranking.of(configuration)
        space = ModelSpace.load(configuration.space, (1, 20, 20), 10)
        record = Record(directory.open_study(ranking.objectives), space, ranking.objectives)
        before = json.loads((path / "environment.json").read_text())
        models = write_reports(directory, record, ranking, configuration, before)
    stored = json.loads((GOLDEN / "top_models.json").read_text())
    assert [{name: model[name] for name in old} for model, old in zip(models, stored, strict=True)] == stored
    rows, stored_rows = (list(csv.DictReader((folder / "pareto.csv").open())) for folder in (path, GOLDEN))
    assert [{name: row[name] for name in old} for row, old in zip(rows, stored_rows, strict=True)] == stored_rows
    assert (path / "study.journal").read_bytes() == (GOLDEN / "study.journal").read_bytes()
    states = [trial.state for trial in record.trials]
    assert (len(states), states.count(RULED_OUT), states.count(COMPLETE)) == (13, 6, 7)
    assert [t.parent for t in record.trials if t.kind == COMPRESSION] == [4, 11]
    assert record.finalists == {4, 10, 11, 12}
    assert all(len(t.curve) == 3 for t in record.trials if t.state == COMPLETE and "quantize" not in t.candidate.recipe)


def test_a_stage_that_version_0_1_took_back_is_rejected(tmp_path: Path) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    lines = (run / "study.journal").read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if '"result":' in line and '"state":"complete"' in line)
    lines[last] = lines[last].replace('"state":"complete"', '"state":"taken back"')
    (run / "study.journal").write_text("".join(lines))
    assert [t.state for t in stored_run(run).trials].count(REJECTED) == 1


@pytest.mark.parametrize(
    "name",
    [
        "search_spaces.lenet:LeNet", "strategies.samplers.tpe:Tpe", "strategies.schedulers.full:Full",
        "compression.prune:Prune", "compression.schedules.agp:Agp", "compression.importances.taylor:Taylor",
        "evaluators.datasets.digits:Digits", "experiments.loggers.tensorboard:Tensorboard",
    ],
)  # fmt: skip
def test_modules_are_found_by_the_names_of_version_0_1(name: str) -> None:
    assert load_class("thing", name, "slimsearch").__module__.startswith("slimsearch.")


def test_a_run_of_version_0_1_that_names_modules_is_resumed(tmp_path: Path) -> None:
    """Beside a folder of the user's that is called like one of the packages of version 0.1."""
    run = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "mine.py").touch()
    config = (run / "config.yaml").read_text()
    config = config.replace("space: lenet", "space: search_spaces.lenet:LeNet")
    (run / "config.yaml").write_text(config.replace("sampler: tpe", "sampler: strategies.samplers.tpe:Tpe"))
    command = [sys.executable, "-m", "slimsearch.cli.main", "run", "--resume", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((run / "top_models.json").read_text())) == 4


def test_a_module_of_the_user_goes_before_one_of_version_0_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evaluators").mkdir()
    (tmp_path / "evaluators" / "__init__.py").touch()
    (tmp_path / "evaluators" / "own.py").write_text("class Own: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_class("thing", "evaluators.own:Own", "slimsearch").__module__ == "evaluators.own"
    assert load_class("thing", "evaluators.datasets.digits:Digits", "slimsearch").__module__.startswith("slimsearch.")
