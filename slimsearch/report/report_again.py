"""The reports of a run made again from its record: what is derived from it can be deleted."""

from __future__ import annotations

from pathlib import Path

from slimsearch.options.configuration import Configuration
from slimsearch.record import environment
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.result import Result
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.shared.storage import normalised, one_line
from slimsearch.record.shared.study import SharedStudy
from slimsearch.report import report
from slimsearch.report.display import Display, Silent


def report_again(path: Path, display: Display | None = None) -> Result:
    """Write top_models.json, pareto.csv and report.html anew; neither the space nor the data need be there.

    What differs from the environment that the run was begun in is said: versions may read a number otherwise.

    Raises:
        SlimsearchError: it is no run, it is damaged, or it is in use.
    """
    display = display or Silent()
    with RunDirectory(path, create=False) as directory:
        configuration = Configuration.read(directory.config)
        before = environment.read(directory.path)
        for line in environment.differences(before, {**before, **environment.machine()}):
            display.warn(f"the environment has changed: {line}")
        ranking = Ranking.of(configuration)
        record = recorded(directory, configuration, ranking)
        models = report.write(directory, record, ranking, configuration, before)
    result = Result(directory.path, tuple(record.trials), tuple(models))
    display.result(result, ranking)
    return result


def recorded(directory: RunDirectory, configuration: Configuration, ranking: Ranking) -> Record:
    """The record of a run, wherever its study is, to be read only.

    Raises:
        SlimsearchError: it is damaged, or cannot be reached.
    """
    if configuration.storage is None:
        return Record(directory.open_study(ranking.objectives), None, ranking.objectives)
    shared = SharedStudy(
        normalised(configuration.storage), configuration.study or directory.path.name, configuration.heartbeat
    )
    with one_line(shared.url, ""):
        shared.reopen()
        return Record(shared.study, None, ranking.objectives)
