"""The record of a run: an Optuna study, the only truth, written by one process and readable by every Optuna tool.

A trial is one write when it starts (a template with all its parameters) and is finished when its state is on
disk. Its result (metrics, artifacts, curve) is written just before, as one attribute.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evaluators import Objective, Outcome
from search_spaces import Candidate, Space
from strategies.samplers import distribution

if TYPE_CHECKING:
    import optuna

RUNNING, PAUSED = "running", "paused"
COMPLETE, FAILED, RULED_OUT, TAKEN_BACK = "complete", "failed", "ruled out", "taken back"
STOPPED = "stopped early"
SEARCH, SUBNET, COMPRESSION = "search", "subnet", "compression"

_FINALISTS = "finalists"
# What was known before training, and objectives after an epoch that are not Optuna's intermediate value.
_KNOWN, _EPOCH = "slimsearch:known", "slimsearch:epoch:"


@dataclass(frozen=True)
class Trial:
    """One candidate's evaluation.

    Attributes:
        number: place in the study.
        candidate: what is or was evaluated.
        kind: "search"; "subnet", judged with weights from the run's supernet; or "compression" of an earlier trial's
            network.
        state: "running"; "paused" (trained in part, perhaps to be continued); "complete"; "failed"; "ruled out" (before
            training); "stopped early"; or "taken back" (a stage of compression that did not pay).
        fidelity: epochs of training.
        seed: of the evaluation.
        parent: number of the trial whose network it starts from.
        curve: metrics after each epoch.
        known: metrics that were known before training.
        metrics: of the exported file; of a trial that was stopped early, what was known of it.
        artifacts: kind to path, relative to the run directory.
        seconds: from start to end, waiting included.
        error: why it failed, in a line.
        reason: why it was ruled out, kept or taken back.
        final: metrics of the finalists, measured together at the end; the test split is only here.
        started, ended: seconds since the epoch.
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
    started: float = 0.0
    ended: float = 0.0

    @property
    def epochs_done(self) -> int:
        """The last epoch that is recorded; 0 where none is."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    def finalised(self) -> Trial:
        """The same with what was measured at the end in place of what was measured in between."""
        return replace(self, metrics={**self.metrics, **self.final})


class Record:
    """Trials in memory and in the study; every change goes to the study first.

    Args:
        study: opened by the run directory.
        space: of the architectures.
        objectives: whose metrics are the study's values.
        on_change: told of a trial after each change.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        objectives: Sequence[Objective],
        on_change: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._study = study
        self._storage = study._storage
        self._distributions = {choice.label: distribution(choice) for choice in space.choices}
        self._choices = {choice.label: choice for choice in space.choices}
        self._objectives = tuple(objectives)
        self._on_change = on_change
        self._ids: list[int] = []
        self._trials: list[Trial] = []
        for frozen in study.get_trials(deepcopy=False):
            self._ids.append(frozen._trial_id)
            self._trials.append(_thaw(frozen))
        for number, metrics in study.user_attrs.get(_FINALISTS, {}).items():
            self._trials[int(number)] = replace(self._trials[int(number)], final=metrics)

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials, by number."""
        return self._trials

    def start(self, candidate: Candidate, *, kind: str, fidelity: int, seed: int, parent: int | None = None) -> Trial:
        """Record that `candidate` is being evaluated."""
        from optuna.trial import FrozenTrial, TrialState

        now = datetime.datetime.now()
        architecture = candidate.architecture
        attributes = {
            "kind": kind, "recipe": json.dumps(candidate.recipe), "fidelity": fidelity, "seed": seed,
            "parent": parent, "key": candidate.key,
        }  # fmt: skip
        template = FrozenTrial(
            number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, values=None, datetime_start=now,
            datetime_complete=None,
            params={label: self._choices[label].text(value) for label, value in architecture.items()},
            distributions={label: self._distributions[label] for label in architecture},
            user_attrs=attributes, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=template)
        trial = Trial(len(self._trials), candidate, kind, RUNNING, fidelity, seed, parent, started=now.timestamp())
        self._ids.append(trial_id)
        self._trials.append(trial)
        self._on_change(trial)
        return trial

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record what is known before training (epoch 0), or the accuracy after an epoch, of a running trial."""
        trial = self._trials[number]
        if epoch == 0:
            self._storage.set_trial_system_attr(self._ids[number], _KNOWN, dict(metrics))
            self._set(replace(trial, known=dict(metrics)))
            return
        others = {o.metric: metrics[o.metric] for o in self._objectives if o.metric in metrics}
        others.pop("val_accuracy", None)
        if others:
            self._storage.set_trial_system_attr(self._ids[number], f"{_EPOCH}{epoch}", others)
        if "val_accuracy" in metrics:
            self._storage.set_trial_intermediate_value(self._ids[number], epoch, metrics["val_accuracy"])
        # A continued training begins where its checkpoint is, which may be before the last recorded epoch.
        before = [point for point in trial.curve if point["epoch"] < epoch]
        self._set(replace(trial, curve=(*before, {"epoch": float(epoch), **metrics})))

    def pause(self, number: int) -> Trial:
        """Record that a running trial waits, to be continued or not."""
        trial = replace(self._trials[number], state=PAUSED)
        kept = {"curve": list(trial.curve), "known": dict(trial.known)}
        self._storage.set_trial_user_attr(self._ids[number], "paused", kept)
        self._set(trial)
        return trial

    def proceed(self, number: int) -> Trial:
        """Record that a paused trial is running again."""
        trial = replace(self._trials[number], state=RUNNING)
        self._storage.set_trial_user_attr(self._ids[number], "paused", None)
        self._set(trial)
        return trial

    def finish(
        self, number: int, outcome: Outcome, *, state: str = COMPLETE, reason: str | None = None,
        violations: Sequence[float] = (),
    ) -> Trial:  # fmt: skip
        """Record the end of a trial that gave an outcome.

        Args:
            number: of a running trial.
            outcome: its artifacts relative to the trial's folder.
            state: "complete", "ruled out", "stopped early" or "taken back".
            reason: why.
            violations: by how much each hard limit is exceeded, 0 or less where it is kept.
        """
        trial = replace(
            self._trials[number],
            state=state,
            metrics=dict(outcome.metrics),
            artifacts={kind: f"{trial_folder(number)}/{name}" for kind, name in outcome.artifacts.items()},
            reason=reason,
        )
        if violations:
            self._storage.set_trial_system_attr(self._ids[number], "constraints", list(violations))
        return self._end(trial)

    def fail(self, number: int, error: str) -> Trial:
        """Record the end of a trial that gave none."""
        return self._end(replace(self._trials[number], state=FAILED, error=error))

    @property
    def finalists(self) -> frozenset[int]:
        """Numbers of the trials that were measured together at the end."""
        return frozenset(trial.number for trial in self._trials if trial.final)

    def finalise(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Record what was measured at the end, of all finalists in one write, in place of earlier ones.

        They are finished trials, which Optuna guards against changes: this belongs to the study.
        """
        self._study.set_user_attr(_FINALISTS, {str(number): dict(found) for number, found in metrics.items()})
        for trial in list(self._trials):
            if trial.final or trial.number in metrics:
                self._set(replace(trial, final=dict(metrics.get(trial.number, {}))))

    def _end(self, trial: Trial) -> Trial:
        from optuna.trial import TrialState

        now = datetime.datetime.now().timestamp()
        trial = replace(trial, seconds=max(0.0, now - trial.started), ended=now)
        result = {
            "state": trial.state, "metrics": trial.metrics, "artifacts": trial.artifacts, "error": trial.error,
            "reason": trial.reason, "curve": list(trial.curve), "seconds": trial.seconds,
        }  # fmt: skip
        trial_id = self._ids[trial.number]
        self._storage.set_trial_user_attr(trial_id, "result", result)
        if trial.state == COMPLETE:
            values = [trial.metrics[objective.metric] for objective in self._objectives]
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
        else:
            state = TrialState.FAIL if trial.state == FAILED else TrialState.PRUNED
            self._storage.set_trial_state_values(trial_id, state)
        self._set(trial)
        return trial

    def _set(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._on_change(trial)


def trial_folder(number: int) -> str:
    """Where a trial's files are, relative to the run directory."""
    return f"trials/{number:05d}"


def _thaw(frozen: optuna.trial.FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    attributes = frozen.user_attrs
    architecture = {label: json.loads(text) for label, text in frozen.params.items()}
    trial = Trial(
        number=frozen.number,
        candidate=Candidate(architecture, json.loads(attributes["recipe"])),
        kind=attributes["kind"],
        state=RUNNING,
        fidelity=attributes["fidelity"],
        seed=attributes["seed"],
        parent=attributes["parent"],
        started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        known=frozen.system_attrs.get(_KNOWN, {}),
    )
    if frozen.state == TrialState.RUNNING:
        paused = attributes.get("paused")
        if paused is not None:
            return replace(trial, state=PAUSED, curve=tuple(paused["curve"]), known=paused["known"])
        points: dict[int, dict[str, float]] = {e: {"val_accuracy": v} for e, v in frozen.intermediate_values.items()}
        for name, others in frozen.system_attrs.items():
            if name.startswith(_EPOCH):
                points.setdefault(int(name.removeprefix(_EPOCH)), {}).update(others)
        return replace(trial, curve=tuple({"epoch": float(e), **points[e]} for e in sorted(points)))
    result = attributes["result"]
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
