"""A run directory that version 0.1.0 wrote must be read by every later version, to the last digit."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import COMPLETE, COMPRESSION, RULED_OUT
from slimsearch.report import report
from slimsearch.search_spaces import ModelSpace

GOLDEN = Path(__file__).parent / "run_format_1"


def test_it_is_read_and_reported_as_it_was(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    with RunDirectory(path, create=False) as directory:
        configuration = Configuration.read(directory.config)
        ranking = Ranking.of(configuration)
        space = ModelSpace.load(configuration.space, (1, 20, 20), 10)
        record = Record(directory.open_study(ranking.objectives), space, ranking.objectives)
        environment = directory.read_json("environment.json")
        models = report.write(directory, record, ranking, configuration, environment)
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
