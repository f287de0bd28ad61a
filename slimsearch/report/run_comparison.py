"""Comparison of runs on the same data set: their results, their options, and their joint front."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import LatencySettings, Meter, Objective, connected_boards, front, hypervolume
from slimsearch.options.configuration import device_hosts, flag
from slimsearch.record import environment
from slimsearch.record.trial import Trial
from slimsearch.report.stored_run import StoredRun, refuse_unread
from slimsearch.report.tables import candidate_text, metric_cells, metric_columns, plain, shown

if TYPE_CHECKING:
    from rich.table import Table

_BLOCKS, _PATIENCE = 45, 20.0
_BOARD_WAIT = 30.0  # seconds to wait for a board that does not answer
# Options about where a run is stored.
_NOT_COMPARED = ("run_dir", "study", "storage")
_LATENCY_OPTIONS = ("runtime", "latency_batch", "latency_threads")


@dataclass(frozen=True)
class Comparison:
    """A comparison of several runs.

    Attributes:
        runs: in the given order.
        objectives: of the first run; all runs have these metrics.
        hypervolumes: of each run's finalists, on the scale of the finalists of all runs.
        joint_front: (run, finalist) pairs that no finalist of any run dominates, the best in the first objective first.
        differences: options that differ, with the value in each run.
        warnings: other reasons why metrics may differ, one line each.
        measured: whether all latencies were measured again for the comparison, interleaved.
    """

    runs: tuple[StoredRun, ...]
    objectives: tuple[Objective, ...]
    hypervolumes: tuple[float, ...]
    joint_front: tuple[tuple[StoredRun, Trial], ...]
    differences: dict[str, list[Any]]
    warnings: tuple[str, ...]
    measured: bool

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "objectives": [{"metric": o.metric, "direction": o.direction} for o in self.objectives],
            "runs": [
                {
                    "run": str(run.path), "state": run.state, "searched": run.searched, "hypervolume": volume,
                    "seconds": _seconds(run), "finalists": len(run.finalists),
                }
                for run, volume in zip(self.runs, self.hypervolumes, strict=True)
            ],
            "differences": self.differences,
            "warnings": list(self.warnings),
            "latency_measured_together": self.measured,
            "joint_front": [
                {
                    "run": str(run.path), "trial": trial.number,
                    "architecture": dict(trial.candidate.architecture),
                    "recipe": {name: dict(options) for name, options in trial.candidate.recipe.items()},
                    "metrics": dict(trial.metrics),
                    "artifact": trial.artifacts.get("model"),
                }
                for run, trial in self.joint_front
            ],
        }  # fmt: skip


def compare(runs: Sequence[StoredRun], *, measure: bool = False, device_host: str | None = None) -> Comparison:
    """Compare runs.

    Args:
        runs: two or more, on the same data.
        measure: measure the latency of all finalists again, interleaved; it is not recorded.
        device_host: of `measure`: a board that measures, see `device_hosts`; None or "none": this machine does.

    Raises:
        SlimsearchError: they cannot be compared.
    """
    _refuse_incomparable(runs)
    objectives = runs[0].ranking.objectives
    finalists = [(run, trial) for run in runs for trial in run.finalists]
    if measure:
        finalists = _measured(finalists, device_host)
    elif device_host is not None:
        raise SlimsearchError("--device-host is for --measure")
    for run, trial in finalists:
        missing = [o.metric for o in objectives if o.metric not in trial.metrics]
        if missing:
            raise SlimsearchError(f"'{run.path}' has no {missing[0]}, which is an objective of '{runs[0].path}'")
    everything = [trial.metrics for _, trial in finalists]
    on_front = [finalists[i] for i in front(objectives, everything)]
    volumes = [hypervolume(objectives, [t.metrics for r, t in finalists if r is run], everything) for run in runs]
    return Comparison(
        tuple(runs),
        objectives,
        tuple(volumes),
        tuple(sorted(on_front, key=lambda found: objectives[0].loss(found[1].metrics))),
        _differences(runs),
        tuple(_warnings(runs, measured=measure)),
        measure,
    )


def tables(found: Comparison) -> list[Table]:
    """Tables of the runs, the options that differ, and the joint front."""
    from rich.table import Table

    runs = Table(title="Runs", title_justify="left")
    for heading, justify in (
        ("run", "left"), ("state", "left"), ("searched", "right"), ("minutes", "right"), ("finalists", "right"),
        ("on the joint front", "right"), ("hypervolume", "right"),
    ):  # fmt: skip
        runs.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for run, volume in zip(found.runs, found.hypervolumes, strict=True):
        members = sum(one is run for one, _ in found.joint_front)
        runs.add_row(
            plain(run.path.name), run.state, str(run.searched), f"{_seconds(run) / 60:.1f}",
            str(len(run.finalists)), str(members), f"{volume:.3f}",
        )  # fmt: skip
    options = Table(title="Options that differ", title_justify="left")
    options.add_column("option")
    for run in found.runs:
        options.add_column(plain(run.path.name), overflow="fold")
    for name, values in found.differences.items():
        options.add_row(flag(name), *(plain(str(value)) for value in values))
    joint = Table(title="Joint front of these runs", title_justify="left")
    columns = metric_columns([trial.metrics for _, trial in found.joint_front], found.objectives)
    for heading in ("run", "trial", "architecture, compression"):
        joint.add_column(heading, overflow="fold", justify="right" if heading == "trial" else "left")
    for heading, _ in columns.values():
        joint.add_column(heading, justify="right", no_wrap=True)
    for run, trial in found.joint_front:
        joint.add_row(
            plain(run.path.name), str(trial.number), plain(candidate_text(trial)),
            *metric_cells(trial.metrics, columns),
        )  # fmt: skip
    return [runs, *([options] if found.differences else []), joint]


def _refuse_incomparable(runs: Sequence[StoredRun]) -> None:
    if len(runs) < 2:
        raise SlimsearchError("compare needs two or more runs")
    refuse_unread(runs)
    studies: dict[tuple[str, str | None], Path] = {}
    for run in runs:
        options = run.configuration
        if options.storage is not None:
            other = studies.setdefault((options.storage, options.study), run.path)
            if other is not run.path:
                raise SlimsearchError(f"'{other}' and '{run.path}' have the same trials: they share a study")
        if not run.finalists:
            raise SlimsearchError(f"'{run.path}' has no finalists yet; finish it with --resume {run.path}")
    refuse_different_data(runs)


def refuse_different_data(runs: Sequence[StoredRun]) -> None:
    """Refuse the same run twice, and runs on different data.

    Raises:
        SlimsearchError: they are not comparable.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise SlimsearchError("the same run is given twice")
    first = runs[0]
    for run in runs:
        ours, theirs = (
            (one.environment["dataset"].get("fingerprint"), one.environment["dataset"]["name"]) for one in (first, run)
        )
        if ours != theirs and (ours[0] is not None or theirs[0] is not None):
            raise SlimsearchError(
                f"'{first.path}' uses {_data(ours)} and '{run.path}' {_data(theirs)}: accuracies on different data "
                "are not comparable"
            )


def _data(found: tuple[str | None, str]) -> str:
    return f"the data set {found[1]} ({found[0] or 'a table'})"


def _differences(runs: Sequence[StoredRun]) -> dict[str, list[Any]]:
    found = {}
    for option in dataclasses.fields(runs[0].configuration):
        values = [getattr(run.configuration, option.name) for run in runs]
        if option.name not in _NOT_COMPARED and any(value != values[0] for value in values):
            found[option.name] = values
    return found


def _warnings(runs: Sequence[StoredRun], *, measured: bool) -> list[str]:
    lines = []
    for run in runs[1:]:
        for line in environment.differences(runs[0].environment, run.environment):
            lines.append(f"{shown(run.path)}: {line}")
    latency = any("latency_ms" in trial.metrics for run in runs for trial in run.finalists)
    if latency and not measured:
        lines.append("latencies were measured separately at the end of each run; --measure measures them together")
    return lines


def _measured(finalists: list[tuple[StoredRun, Trial]], device_host: str | None) -> list[tuple[StoredRun, Trial]]:
    run = finalists[0][0]
    for other, trial in finalists:
        for name in _LATENCY_OPTIONS:
            ours, theirs = (getattr(one.configuration, name) for one in (run, other))
            if ours != theirs:
                raise SlimsearchError(f"--measure: {flag(name)} is {ours} in '{run.path}', {theirs} in '{other.path}'")
        if other.configuration.device_host is not None and device_host is None:
            raise SlimsearchError(
                f"--measure: '{other.path}' measured on {other.configuration.device_host}, whose address is not "
                "stored: add --device-host user@board, or --device-host none for this machine"
            )
        if not (other.path / trial.artifacts.get("model", "none")).is_file():
            raise SlimsearchError(f"--measure: the file of trial {trial.number} is not in '{other.path}'")
    options, shape = run.configuration, run.environment["dataset"].get("input_shape")
    hosts = device_hosts(None if device_host == "none" else device_host)
    boards = connected_boards(hosts, options.runtime, options.latency_threads)
    settings = LatencySettings(options.latency_batch, options.latency_threads, options.runtime, boards=boards)
    measured = settings.device(Meter(), _BOARD_WAIT).measure(
        [other.path / trial.artifacts["model"] for other, trial in finalists],
        settings.measurement(tuple(shape), _PATIENCE, blocks=_BLOCKS),
    )
    return [
        (other, replace(trial, metrics={**trial.metrics, **latency.metrics()}))
        for (other, trial), latency in zip(finalists, measured.latencies, strict=True)
    ]


def _seconds(run: StoredRun) -> float:
    """Seconds from the start of the first trial to the end of the last, including pauses before a resume."""
    ended = [t.ended for t in run.trials if t.ended]
    return max(ended) - min(t.started for t in run.trials) if ended else 0.0
