"""Trials: evaluations of candidates, and their conversion from trials of an Optuna study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
COMPLETE, FAILED, RULED_OUT, REJECTED = "complete", "failed", "ruled out", "rejected"
STOPPED = "stopped early"
LOST, WITHDRAWN = "lost", "withdrawn"
SUPERSEDED = (LOST, WITHDRAWN)
"""States of trials that another trial of the same candidate replaces, or will replace."""
_STATES = (RUNNING, PAUSED, COMPLETE, FAILED, RULED_OUT, REJECTED, STOPPED, *SUPERSEDED)
_OLD_STATES = {"taken back": REJECTED}  # of version 0.1
SEARCH, SUBNET, COMPRESSION, REPEAT, STEP = "search", "subnet", "compression", "repeat", "step"
AUXILIARY = (SUBNET, REPEAT, STEP)
"""Kinds of trials that are not results of the run and never finalists."""

# System attributes: metrics known before training, and objectives after an epoch besides Optuna's intermediate value.
KNOWN, EPOCH = "slimsearch:known", "slimsearch:epoch:"
# User attributes of the study: final metrics and confusion matrices by number of the trial.
FINALISTS, CONFUSIONS = "finalists", "confusions"


@dataclass(frozen=True)
class Trial:
    """The evaluation of one candidate.

    Attributes:
        number: position in the study, from 0.
        candidate: the evaluated architecture and recipe.
        kind: "search"; "subnet" (scored with the supernet's weights); "compression" (of an earlier trial's network);
            "repeat" (of an earlier trial with another seed); or "step" (a finalist's recipe without its last stages).
        state: "running"; "paused" (partly trained); "complete"; "failed"; "ruled out" (before training); "stopped
            early"; "rejected" (a compression stage that lost too much or saved nothing); with several drivers also
            "lost" (its driver stopped sending heartbeats) or "withdrawn" (another driver had started the candidate).
        fidelity: epochs of training.
        seed: of the evaluation.
        parent: number of the trial whose network it starts from.
        curve: metrics after each epoch.
        known: metrics known before training.
        labels: the point of the searched space; by default the architecture.
        metrics: of the exported file; of a trial that was stopped early, the last known ones.
        artifacts: kind to path, relative to the run directory.
        seconds: from start to end, including waiting.
        error: why the trial failed, in one line.
        reason: why the trial was ruled out, stopped, accepted or rejected.
        final: metrics of finalists, measured together at the end of the run; test accuracy is only here.
        confusion: of finalists on the test split: (true class, predicted class, images), most images first.
        started, ended: seconds since 1970.
        driver, host: which driver evaluates it on which machine, with several drivers.
        repeats, repetition: number of the repeated trial, and repetition index, from 1.
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
    repetition: int = 0
    labels: Mapping[str, Any] | None = None

    @property
    def point(self) -> Mapping[str, Any]:
        """The point of the searched space."""
        return self.candidate.architecture if self.labels is None else self.labels

    @property
    def given(self) -> bool:
        """Whether it scores the network that the run was given, as it was: only such a network has no choices."""
        candidate = self.candidate
        return self.kind == SEARCH and not (candidate.architecture or candidate.recipe or candidate.training)

    @property
    def unfinished(self) -> bool:
        """Whether the trial is running or paused."""
        return self.state in (RUNNING, PAUSED)

    @property
    def epochs_done(self) -> int:
        """The last recorded epoch, or 0."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    def with_final_metrics(self) -> Trial:
        """The trial with its final metrics in place of those measured during the search."""
        return replace(self, metrics={**self.metrics, **self.final})


def trial_seed(run_seed: int, number: int) -> int:
    """The seed of a trial: different for each trial, the same after a resume."""
    return int(np.random.SeedSequence([run_seed, number]).generate_state(1)[0] >> 1)


def trial_folder(number: int) -> str:
    """The folder of a trial's files, relative to the run directory."""
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


def read_trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    """Convert a trial of an Optuna study, which may have been edited by hand or by another program.

    Raises:
        SlimsearchError: Slimsearch would not have written the trial like this.
    """
    try:
        trial = _convert(frozen)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise SlimsearchError(f"trial {frozen.number} of the record is damaged: {first_line(error)}") from error
    if trial.kind not in (SEARCH, SUBNET, COMPRESSION, REPEAT, STEP) or trial.state not in _STATES:
        raise SlimsearchError(
            f"trial {trial.number} of the record is damaged: kind {trial.kind!r}, state {trial.state!r}"
        )
    if not all("epoch" in point for point in trial.curve):
        raise SlimsearchError(f"trial {trial.number} of the record is damaged: a point of its curve has no epoch")
    if trial.candidate.key != frozen.user_attrs.get("key", trial.candidate.key):
        raise SlimsearchError(f"trial {trial.number} of the record is damaged: its candidate does not match its key")
    folder = PurePosixPath(trial_folder(trial.number))
    for path in trial.artifacts.values():
        if PurePosixPath(path).parent != folder or path.endswith("/..") or "\\" in path:
            raise SlimsearchError(
                f"trial {trial.number} of the record names the file '{path}', which is not in {folder}"
            )
    return trial


def read_finalists(attributes: Mapping[str, Any], trials: Sequence[Trial]) -> list[Trial]:
    """The finalists among `trials`, with their final metrics from the user attributes of the study.

    Raises:
        SlimsearchError: the attributes are damaged.
    """
    finalists, confusions = attributes.get(FINALISTS, {}), attributes.get(CONFUSIONS, {})
    wrong = mismatch(finalists, {str: {str: float}}, FINALISTS) or mismatch(confusions, {str: [[int]]}, CONFUSIONS)
    numbers = {str(trial.number): trial.number for trial in trials}
    if wrong is None and not finalists.keys() <= numbers.keys():
        wrong = "it has a finalist without a trial"
    if wrong is None and any(len(cell) != 3 or min(cell) < 0 for cells in confusions.values() for cell in cells):
        wrong = "it has an invalid confusion matrix"
    if wrong is not None:
        raise SlimsearchError(f"the record is damaged: {wrong}")
    return [
        replace(trials[numbers[number]], final=metrics, confusion=tuple(tuple(c) for c in confusions.get(number, ())))
        for number, metrics in finalists.items()
    ]


def _checked(value: Any, wanted: Any, where: str) -> Any:
    wrong = mismatch(value, wanted, where)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def _text_of(frozen: optuna.trial.FrozenTrial) -> str:
    return json.dumps([frozen.params, frozen.user_attrs, frozen.system_attrs], ensure_ascii=False, default=str)


def _convert(frozen: optuna.trial.FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    attributes = _checked(frozen.user_attrs, _TRIAL, "it")
    _text_of(frozen).encode()  # lone surrogates raise a ValueError
    labels = {label: json.loads(text) for label, text in frozen.params.items()}
    architecture = labels
    if "architecture" in attributes:  # with --co-search the space has more labels
        architecture = _checked(json.loads(attributes["architecture"]), {str: object}, "architecture")
    trial = Trial(
        number=frozen.number,
        candidate=Candidate(
            architecture,
            _checked(json.loads(attributes["recipe"]), {str: {str: object}}, "recipe"),
            _checked(json.loads(attributes.get("training", "{}")), {str: object}, "training"),
        ),
        labels=labels,
        kind=attributes["kind"],
        state=RUNNING,
        fidelity=attributes["fidelity"],
        seed=attributes["seed"],
        parent=attributes["parent"],
        started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        known=_checked(frozen.system_attrs.get(KNOWN, {}), {str: float}, "known"),
        driver=attributes.get("driver"),
        host=attributes.get("host"),
        repeats=attributes.get("repeats"),
        repetition=attributes.get("turn", 0),
    )
    if frozen.state == TrialState.RUNNING:
        paused = attributes.get("paused")
        if paused is not None:
            _checked(paused, _PAUSED, "paused")
            return replace(trial, state=PAUSED, curve=tuple(paused["curve"]), known=paused["known"])
        points: dict[int, dict[str, float]] = {e: {"val_accuracy": v} for e, v in frozen.intermediate_values.items()}
        for name, others in frozen.system_attrs.items():
            if name.startswith(EPOCH):
                epoch = int(name.removeprefix(EPOCH))
                points.setdefault(epoch, {}).update(_checked(others, {str: float}, name))
        return replace(trial, curve=tuple({"epoch": float(e), **points[e]} for e in sorted(points)))
    result = _checked(attributes.get("result", {}), {"state?": object}, "result")
    if frozen.state == TrialState.FAIL and result.get("state") != FAILED:  # see `Driver.end_lost`
        return replace(trial, state=LOST, error="its driver stopped sending heartbeats")
    _checked(result, _RESULT, "result")
    return replace(
        trial,
        state=_OLD_STATES.get(result["state"], result["state"]),
        metrics=result["metrics"],
        artifacts=result["artifacts"],
        error=result["error"],
        reason=result["reason"],
        curve=tuple(result["curve"]),
        seconds=result["seconds"],
        ended=frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
    )
