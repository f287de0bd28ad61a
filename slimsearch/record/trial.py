"""A trial: one candidate's evaluation, and how it is read from an Optuna study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.reading import mismatch
from slimsearch.search_spaces import Candidate

if TYPE_CHECKING:
    import optuna

RUNNING, PAUSED = "running", "paused"
COMPLETE, FAILED, RULED_OUT, TAKEN_BACK = "complete", "failed", "ruled out", "taken back"
STOPPED = "stopped early"
LOST, WITHDRAWN = "lost", "withdrawn"
SUPERSEDED = (LOST, WITHDRAWN)
"""Trials that count for nothing: their candidate is another trial's, or will be."""
_STATES = (RUNNING, PAUSED, COMPLETE, FAILED, RULED_OUT, TAKEN_BACK, STOPPED, *SUPERSEDED)
SEARCH, SUBNET, COMPRESSION, REPEAT, STEP = "search", "subnet", "compression", "repeat", "step"
ASIDE = (SUBNET, REPEAT, STEP)
"""Trials that are no result of the run: judged with borrowed weights, made again, or on the way to one."""

# What was known before training, and objectives after an epoch that are not Optuna's intermediate value.
KNOWN, EPOCH = "slimsearch:known", "slimsearch:epoch:"


@dataclass(frozen=True)
class Trial:
    """One candidate's evaluation.

    Attributes:
        number: place in the study.
        candidate: what is or was evaluated.
        kind: "search"; "subnet", judged with weights from the run's supernet; "compression" of an earlier trial's
            network; "repeat" of an earlier trial with another seed; or "step", a part of a finalist's recipe.
        state: "running"; "paused" (trained in part, perhaps to be continued); "complete"; "failed"; "ruled out" (before
            training); "stopped early"; "taken back" (a stage of compression that did not pay); or, of several drivers,
            "lost" (with its driver) or "withdrawn" (another driver had begun the same, or the last one, before).
        fidelity: epochs of training.
        seed: of the evaluation.
        parent: number of the trial whose network it starts from.
        curve: metrics after each epoch.
        known: metrics that were known before training.
        labels: the point of the space that it stands for; by default its architecture.
        metrics: of the exported file; of a trial that was stopped early, what was known of it.
        artifacts: kind to path, relative to the run directory.
        seconds: from start to end, waiting included.
        error: why it failed, in a line.
        reason: why it was ruled out, kept or taken back.
        final: metrics of the finalists, measured together at the end; the test split is only here.
        confusion: of the finalists on the test split: (true class, predicted class, images), most images first.
        started, ended: seconds since the epoch.
        driver, host: who evaluates it and on what machine, where there are several drivers.
        repeats, turn: number of the trial that it repeats, and the how manieth repetition it is.
    """

    number: int
    candidate: Candidate
    kind: str
    state: str
    fidelity: int
    seed: int
    parent: int | None = None
    curve: tuple[Mapping[str, float], ...] = ()
    known: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    reason: str | None = None
    final: Mapping[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, int, int], ...] = ()
    started: float = 0.0
    ended: float = 0.0
    driver: str | None = None
    host: str | None = None
    repeats: int | None = None
    turn: int = 0
    labels: Mapping[str, Any] | None = None

    @property
    def point(self) -> Mapping[str, Any]:
        """The point of the searched space that it stands for."""
        return self.candidate.architecture if self.labels is None else self.labels

    @property
    def unfinished(self) -> bool:
        """Whether it is running or paused."""
        return self.state in (RUNNING, PAUSED)

    @property
    def epochs_done(self) -> int:
        """The last epoch that is recorded; 0 where none is."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    def finalised(self) -> Trial:
        """The same with what was measured at the end in place of what was measured in between."""
        return replace(self, metrics={**self.metrics, **self.final})


def trial_seed(run_seed: int, number: int) -> int:
    """The seed of a trial: different for each, the same after a resume."""
    return int(np.random.SeedSequence([run_seed, number]).generate_state(1)[0] >> 1)


def trial_folder(number: int) -> str:
    """Where a trial's files are, relative to the run directory."""
    return f"trials/{number:05d}"


_CURVE = [{str: float}]
_TRIAL = {
    "kind": str, "recipe": str, "fidelity": int, "seed": int, "parent": int | None, "driver?": str | None,
    "host?": str | None, "repeats?": int | None, "turn?": int, "architecture?": str, "training?": str, "key?": str,
}  # fmt: skip
_PAUSED = {"curve": _CURVE, "known": {str: float}}
_RESULT = {
    "state": str, "metrics": {str: float}, "artifacts": {str: str}, "error": str | None, "reason": str | None,
    "curve": _CURVE, "seconds": float,
}  # fmt: skip


def thaw(frozen: optuna.trial.FrozenTrial) -> Trial:
    """A trial as Optuna has it, which anybody may have written.

    Raises:
        SlimsearchError: it is not as we would have written it.
    """
    try:
        trial = _read(frozen)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise SlimsearchError(f"trial {frozen.number} of the record is damaged: {first_line(error)}") from error
    if trial.kind not in (SEARCH, SUBNET, COMPRESSION, REPEAT, STEP) or trial.state not in _STATES:
        raise SlimsearchError(f"trial {trial.number} of the record is damaged: a {trial.kind} that is {trial.state}")
    if not all("epoch" in point for point in trial.curve):
        raise SlimsearchError(f"trial {trial.number} of the record is damaged: a point of its curve has no epoch")
    if trial.candidate.key != frozen.user_attrs.get("key", trial.candidate.key):
        raise SlimsearchError(f"trial {trial.number} of the record is damaged: its candidate is not the one it was")
    folder = PurePosixPath(trial_folder(trial.number))
    for path in trial.artifacts.values():
        if PurePosixPath(path).parent != folder or path.endswith("/..") or "\\" in path:
            raise SlimsearchError(f"trial {trial.number} of the record names the file '{path}': it is not in {folder}")
    return trial


def _must(value: Any, wanted: Any, where: str) -> Any:
    found = mismatch(value, wanted, where)
    if found is not None:
        raise ValueError(found)
    return value


def _read(frozen: optuna.trial.FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    attributes = _must(frozen.user_attrs, _TRIAL, "it")
    labels = {label: json.loads(text) for label, text in frozen.params.items()}
    architecture = labels
    if "architecture" in attributes:  # where the space has more than that
        architecture = _must(json.loads(attributes["architecture"]), {str: object}, "architecture")
    trial = Trial(
        number=frozen.number,
        candidate=Candidate(
            architecture,
            _must(json.loads(attributes["recipe"]), {str: {str: object}}, "recipe"),
            _must(json.loads(attributes.get("training", "{}")), {str: object}, "training"),
        ),
        labels=labels,
        kind=attributes["kind"],
        state=RUNNING,
        fidelity=attributes["fidelity"],
        seed=attributes["seed"],
        parent=attributes["parent"],
        started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        known=_must(frozen.system_attrs.get(KNOWN, {}), {str: float}, "known"),
        driver=attributes.get("driver"),
        host=attributes.get("host"),
        repeats=attributes.get("repeats"),
        turn=attributes.get("turn", 0),
    )
    if frozen.state == TrialState.RUNNING:
        paused = attributes.get("paused")
        if paused is not None:
            _must(paused, _PAUSED, "paused")
            return replace(trial, state=PAUSED, curve=tuple(paused["curve"]), known=paused["known"])
        points: dict[int, dict[str, float]] = {e: {"val_accuracy": v} for e, v in frozen.intermediate_values.items()}
        for name, others in frozen.system_attrs.items():
            if name.startswith(EPOCH):
                epoch = int(name.removeprefix(EPOCH))
                points.setdefault(epoch, {}).update(_must(others, {str: float}, name))
        return replace(trial, curve=tuple({"epoch": float(e), **points[e]} for e in sorted(points)))
    result = _must(attributes.get("result", {}), {"state?": object}, "result")
    if frozen.state == TrialState.FAIL and result.get("state") != FAILED:  # see `Driver.end_lost`
        return replace(trial, state=LOST, error="its driver was lost")
    _must(result, _RESULT, "result")
    return replace(
        trial,
        state=result["state"],
        metrics=result["metrics"],
        artifacts=result["artifacts"],
        error=result["error"],
        reason=result["reason"],
        curve=tuple(result["curve"]),
        seconds=result["seconds"],
        ended=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
    )
