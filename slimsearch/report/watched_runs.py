"""Runs that are watched while they go on: their reports as JSON, read again when their records have changed."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import front
from slimsearch.record.run_directory import in_use
from slimsearch.report.page_data import page_data, page_text
from slimsearch.report.report_files import top_models, trials_csv
from slimsearch.report.run_comparison import refuse_different_data
from slimsearch.report.stored_run import FINISHED, RUNNING, StoredRun, refuse_unread, stored_run

T = TypeVar("T")

MOST_RUNS = 8
"""The largest number of runs in one chart, which have different colors and marks."""

# A run is read again for at most this share of the time, since it may need the processor itself.
_SHARE = 0.1
_FILES = ("study.journal", "config.yaml")
# Seconds between two reads of a study in a database.
_DATABASE_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Answer:
    """JSON for a page.

    Attributes:
        text: the JSON.
        revision: another one for other data.
    """

    text: str
    revision: str


class Refreshed(Generic[T]):
    """A value that is made again when its revision has changed, but not too often.

    Args:
        revision: returns the current revision, cheaply.
        make: makes the value.
    """

    def __init__(self, revision: Callable[[], str], make: Callable[[], T]) -> None:
        self._current, self._make = revision, make
        self._lock = threading.Lock()
        self._found: tuple[str, T] | None = None
        self._again = 0.0

    def get(self) -> tuple[str, T]:
        """The revision and the value.

        Raises:
            SlimsearchError: it cannot be made.
        """
        with self._lock:
            revision, began = self._current(), time.monotonic()
            if self._found is None or (revision != self._found[0] and began >= self._again):
                self._found = revision, self._make()
                ended = time.monotonic()
                self._again = ended + (ended - began) * (1 / _SHARE - 1)
            return self._found


@dataclasses.dataclass(frozen=True)
class _Report:
    """A run as read: its trials with their files, and the data of its page, with another revision for other data."""

    run: StoredRun
    models: list[dict[str, Any]]
    data: dict[str, Any]
    answer: Answer


class WatchedRun:
    """A run that is watched.

    Args:
        path: of its directory.
        name: in the page and its address.
        storage: see `stored_run`.
    """

    def __init__(self, path: Path, name: str, storage: str | None = None) -> None:
        self.path, self.name, self._storage = path, name, storage
        self._report = Refreshed(self._revision, self._read)

    def answer(self) -> Answer:
        """The data of its page.

        Raises:
            SlimsearchError: it cannot be read.
        """
        return self._report.get()[1].answer

    def report(self) -> tuple[str, dict[str, Any]]:
        """The revision and the data of its page as a dict.

        Raises:
            SlimsearchError: it cannot be read.
        """
        report = self._report.get()[1]
        return report.answer.revision, report.data

    def csv(self) -> str:
        """All its trials.

        Raises:
            SlimsearchError: it cannot be read.
        """
        report = self._report.get()[1]
        return trials_csv(report.run.trials, report.models)

    def file(self, name: str) -> Path | None:
        """The path of a trial's file, if the record names it and it is in the run directory.

        Raises:
            SlimsearchError: the run cannot be read.
        """
        report = self._report.get()[1]
        if not any(name in trial.artifacts.values() for trial in report.run.trials):
            return None
        path, root = (self.path / name).resolve(), self.path.resolve()
        return path if path.is_relative_to(root) and path.is_file() else None

    def _revision(self) -> str:
        found = [RUNNING if in_use(self.path) else ""]
        for name in _FILES:
            try:
                status = (self.path / name).stat()
                found.append(f"{status.st_size:x}.{status.st_mtime_ns:x}")
            except OSError:
                found.append("")
        if not (self.path / _FILES[0]).exists():  # the study is in a database
            found.append(str(int(time.monotonic() / _DATABASE_SECONDS)))
        return "-".join(found)

    def _read(self) -> _Report:
        try:
            return self._read_directory()
        except OSError as error:
            raise SlimsearchError(f"cannot read '{self.path}': {error.strerror}") from error

    def _read_directory(self) -> _Report:
        run = stored_run(self.path, storage=self._storage)
        models = top_models(self.path, run.trials, run.ranking, run.configuration.prefer)
        data = page_data(self.path, run.trials, models, run.ranking, run.configuration, run.environment)
        data |= {"state": run.state}
        revision = hashlib.sha256(page_text(data).encode()).hexdigest()
        data |= {"read": f"{datetime.datetime.now():%H:%M:%S}"}
        return _Report(run, models, data, Answer(page_text(data), revision))


class WatchedRuns:
    """Several runs that are watched, with the same objectives and data.

    Args:
        paths: of their directories.
        storage: of studies in a database, see `stored_run`.

    Raises:
        SlimsearchError: one is not a run, or they cannot be in one chart.
    """

    def __init__(self, paths: Sequence[Path], storage: str | None = None) -> None:
        if len(paths) > MOST_RUNS:
            raise SlimsearchError(f"watch shows at most {MOST_RUNS} runs, not {len(paths)}")
        runs = [stored_run(path, storage=storage) for path in paths]
        refuse_unread(runs)
        refuse_different_data(runs)
        _refuse_different_objectives(runs)
        names: dict[str, WatchedRun] = {}
        for path in (path.resolve() for path in paths):
            same = sum(one.path.name == path.name for one in names.values())
            name = f"{path.name}-{same + 1}" if same else path.name
            names[name] = WatchedRun(path, name, storage)
        self.runs = names
        """By name."""
        self._ranking = runs[0].ranking

    def answer(self) -> Answer:
        """The data of the page of all runs; a run that cannot be read has an error in place of its trials."""
        revisions, reports = [], []
        for run in self.runs.values():
            try:
                revision, data = run.report()
            except SlimsearchError as error:
                revision, data = str(error), {"error": str(error)}
            revisions.append(revision)
            reports.append(data)
        return Answer(page_text(self._overlaid(reports)), "|".join(revisions))

    def _overlaid(self, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        runs: list[dict[str, Any]] = []
        trials: list[dict[str, Any]] = []
        first = next((data for data in reports if "error" not in data), None)
        objectives = self._ranking.objectives
        for name, data in zip(self.runs, reports, strict=True):
            if "error" in data:
                runs.append({**_UNREAD, "name": name, "error": data["error"]})
                continue
            numbers = {trial["number"]: len(trials) + i for i, trial in enumerate(data["trials"])}
            for trial in data["trials"]:
                artifact = trial["artifact"]
                own = {
                    "run": len(runs), "own": trial["number"], "number": numbers[trial["number"]],
                    "parent": numbers.get(trial["parent"]), "on_own_front": trial["on_front"], "on_front": False,
                    "artifact": None if artifact is None else f"runs/{name}/{artifact}", "curve": [], "point": {},
                }  # fmt: skip
                trials.append({**trial, **own})
            best = data["history"]["trials"]["best"]
            runs.append(
                {
                    "name": name, "error": None, "best": best[-1][1] if best else None, "joint": 0,
                    **{key: data[key] for key in ("state", "space", "strategy", "sampler", "of", "front", "seconds")},
                    **{key: data[key] for key in ("export", "history", "limits")},
                }
            )  # fmt: skip
        candidates = [trial for trial in trials if trial["on_own_front"]]
        for i in front(objectives, [trial["metrics"] for trial in candidates]):
            candidates[i]["on_front"] = True
            runs[candidates[i]["run"]]["joint"] += 1
        states = {run["state"] for run in runs}
        shared = {tuple(run["limits"]) for run in runs}
        return {
            "name": ", ".join(self.runs), "runs": runs, "trials": trials, "finalists": [], "environment": {},
            "objectives": [{"metric": o.metric, "direction": o.direction} for o in objectives],
            "leading": self._ranking.leading.metric, "dataset": {} if first is None else first["dataset"],
            "limits": list(*shared) if len(shared) == 1 else [],
            "of": sum(run["of"] for run in runs), "front": sum(trial["on_front"] for trial in trials),
            "state": RUNNING if RUNNING in states else FINISHED if states == {FINISHED} else "stopped",
            "read": f"{datetime.datetime.now():%H:%M:%S}",
        }  # fmt: skip


_UNREAD: dict[str, Any] = {
    "state": "cannot be read", "space": "", "strategy": "", "sampler": "", "of": 0, "front": 0, "joint": 0,
    "seconds": {"wall": 0, "training": 0, "trials": 0}, "export": None, "history": {}, "limits": [], "best": None,
}  # fmt: skip


def error_text(error: SlimsearchError) -> str:
    """An error as the JSON that pages show."""
    return json.dumps({"error": str(error)})


def _refuse_different_objectives(runs: Sequence[StoredRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = ([f"{o.metric}:{o.direction}" for o in one.ranking.objectives] for one in (first, run))
        if sorted(ours) != sorted(theirs):
            raise SlimsearchError(
                f"'{first.path}' has the objectives {', '.join(ours)} and '{run.path}' {', '.join(theirs)}: their "
                "fronts do not fit in one chart; watch them one by one"
            )
