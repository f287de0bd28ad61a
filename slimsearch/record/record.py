"""The record of a run: an Optuna study, the only source of truth, readable by every Optuna tool.

A trial is written once when it starts (a template with all its parameters), and is finished when its final state is on
disk. Its result (metrics, artifacts, curve) is written just before that, as one attribute.

The journal of a run directory has one writer. A study in a database has one driver on each machine. The driver that
starts a trial also records its end; `Record.sync` reads trials of other drivers.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from slimsearch.evaluators import Objective, Outcome
from slimsearch.record._optuna_private import storage_of, study_id, trial_id
from slimsearch.record.trial import (
    COMPLETE,
    CONFUSIONS,
    EPOCH,
    FAILED,
    FINALISTS,
    KNOWN,
    PAUSED,
    REPEAT,
    RUNNING,
    STEP,
    SUPERSEDED,
    WITHDRAWN,
    Trial,
    read_finalists,
    read_trial,
    trial_folder,
    trial_seed,
)  # fmt: skip
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers import distribution

if TYPE_CHECKING:
    import optuna

    from slimsearch.record.shared.driver import Driver

_log = logging.getLogger(__name__)


class Record:
    """The trials of a run, in memory and in the study; every change is written to the study first.

    Args:
        study: in the run directory's journal, or in a database.
        space: the searched space; None to read trials only.
        objectives: their metrics are the values of the study.
        on_change: called with a trial after each change.
        driver: this process among several drivers; None if it is the only writer.

    Attributes:
        changed: numbers of started trials and of trials changed by other drivers, in order of the change.

    Raises:
        SlimsearchError: the record is damaged.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space | None,
        objectives: Sequence[Objective],
        on_change: Callable[[Trial], None] = lambda trial: None,
        driver: Driver | None = None,
    ) -> None:
        self._study = study
        self._storage, self._study_id = storage_of(study), study_id(study)
        self._space = space
        choices = space.choices if space is not None else ()
        self._choices = {choice.label: choice for choice in choices}
        self._objectives = tuple(objectives)
        self._on_change = on_change
        self._driver = driver
        self._ids: list[int] = []
        # `time.monotonic` at the start of this process's trials, since the wall clock may be changed.
        self._began: dict[int, float] = {}
        self._trials: list[Trial] = []
        self._claims: dict[tuple[str, int | None, int, str], list[int]] = {}
        self.changed: list[int] = []
        for frozen in study.get_trials(deepcopy=False):
            trial = read_trial(frozen)
            if driver is not None and trial.unfinished:
                self._watch(driver, trial_id(frozen), trial)
            self._append(trial_id(frozen), trial)
        for trial in read_finalists(study.user_attrs, self._trials):
            self._trials[trial.number] = trial

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials, by number."""
        return self._trials

    @property
    def shared(self) -> bool:
        """Whether several drivers share the study."""
        return self._driver is not None

    @property
    def standing(self) -> Sequence[Trial]:
        """The trials that count for their candidates, see `stands`, by number."""
        return [t for t in self._trials if self.stands(t.number)] if self.shared else self._trials

    def stands(self, number: int) -> bool:
        """Whether a trial counts: it is not superseded, and no earlier trial has the same candidate."""
        return self._trials[number].state not in SUPERSEDED and (not self.shared or self._first(number) == number)

    def is_own(self, number: int) -> bool:
        """Whether this driver started the trial."""
        return self._driver is None or self._trials[number].driver == self._driver.identity

    def others_have(self, kind: str, *states: str) -> bool:
        """Whether another driver has a trial of `kind` in one of `states`."""
        return self.shared and any(
            t.kind == kind and t.state in states and not self.is_own(t.number) for t in self._trials
        )

    def sync(self) -> None:
        """Read what other drivers have recorded, after failing the trials of lost drivers."""
        if self._driver is None:
            return
        self._driver.end_lost()
        for frozen in self._study.get_trials(deepcopy=False):
            number = frozen.number
            if number == len(self._trials):
                trial = read_trial(frozen)
                if trial.unfinished:
                    self._watch(self._driver, trial_id(frozen), trial)
                self._append(trial_id(frozen), trial)
                self._on_change(trial)
            elif self._trials[number].unfinished and (frozen.state.is_finished() or not self.is_own(number)):
                trial = read_trial(frozen)
                if trial != self._trials[number]:
                    self._update(trial)

    def wait(self) -> None:
        """Sleep for a moment, then read what other drivers have recorded."""
        from slimsearch.record.shared.study import POLL_SECONDS

        time.sleep(POLL_SECONDS)
        self.sync()

    def fetch(self, trial: Trial) -> None:
        """Copy the artifacts of a finished trial of another driver into the run directory."""
        if self._driver is not None:
            self._driver.fetch(self._storage.get_trial(self._ids[trial.number]), trial.artifacts.values())

    def start(
        self, candidate: Candidate, *, kind: str, fidelity: int, seed: int, parent: int | None = None,
        repeats: int | None = None, repetition: int = 0, common_seed: bool = False, point: Point | None = None,
    ) -> Trial:  # fmt: skip
        """Record the start of a trial of `candidate`.

        With several drivers, a trial claims its candidate, and is returned as withdrawn if another driver's claim was
        first. The storage assigns numbers one after the other, each once the trial before can be read (PostgreSQL locks
        the study's row meanwhile, SQLite the file). A driver that reads the study after it has added its trial
        therefore sees every trial with a lower number; of several with the same candidate, the lowest number wins.

        Args:
            candidate: the architecture and recipe to evaluate.
            kind: of the trial.
            fidelity: epochs of training.
            seed: of the run; the trial's seed follows from it and from the trial's number.
            parent: number of the trial whose network it starts from.
            repeats, repetition: number of the repeated trial, and repetition index, from 1.
            common_seed: use the same seed for all such trials, so that the steps they share are equal.
            point: recorded in place of the candidate's own point, where the candidate is not in the space.
        """
        from optuna.trial import FrozenTrial, TrialState

        now = datetime.datetime.now()
        number = len(self._trials)
        assert self._space is not None
        labels = dict(point) if point is not None else self._space.point(candidate)
        if not labels.keys() <= self._choices.keys():  # the space has learned of others
            self._choices = {choice.label: choice for choice in self._space.choices}
        own_seed = trial_seed(seed, 0 if common_seed else number)
        attributes = {
            "kind": kind, "recipe": json.dumps(candidate.recipe), "fidelity": fidelity,
            "seed": own_seed, "parent": parent, "key": candidate.key,
        }  # fmt: skip
        if candidate.training:
            attributes["training"] = json.dumps(candidate.training)
        if labels.keys() != candidate.architecture.keys():
            attributes["architecture"] = json.dumps(candidate.architecture)
        if repeats is not None:
            attributes |= {"repeats": repeats, "turn": repetition}
        if self._driver is not None:
            attributes |= {"driver": self._driver.identity, "host": self._driver.host}
        template = FrozenTrial(
            number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, values=None, datetime_start=now,
            datetime_complete=None,
            params={label: self._choices[label].text(value) for label, value in labels.items()},
            distributions={label: distribution(self._choices[label]) for label in labels},
            user_attrs=attributes, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        key = self._storage.create_new_trial(self._study_id, template_trial=template)
        if self._driver is not None:
            return self._claimed(self._driver, key, None if common_seed else seed)
        trial = Trial(
            number, candidate, kind, RUNNING, fidelity, own_seed, parent, started=now.timestamp(),
            repeats=repeats, repetition=repetition, labels=labels,
        )  # fmt: skip
        self._began[number] = time.monotonic()
        self._append(key, trial)
        self._on_change(trial)
        return trial

    def _claimed(self, driver: Driver, key: int, seed: int | None) -> Trial:
        driver.heartbeat.add(key)
        number = self._storage.get_trial_number_from_id(key)
        self._began[number] = time.monotonic()
        if seed is not None and number != len(self._trials):  # others have started trials meanwhile
            self._storage.set_trial_user_attr(key, "seed", trial_seed(seed, number))
        known = len(self._trials)
        self.sync()
        for earlier in range(known, number):
            if self.is_own(earlier):  # the connection broke after the write, and Optuna tried again
                self.withdraw(earlier, f"recorded twice, as trial {number} too")
        first = self._first(number)
        if first != number:
            return self.withdraw(number, f"trial {first} of another driver has the same candidate")
        return self._trials[number]

    def withdraw(self, number: int, reason: str) -> Trial:
        """Record that a trial that has just started is not evaluated."""
        return self._end(replace(self._trials[number], state=WITHDRAWN, reason=reason))

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record metrics of a running trial: after an epoch, or those known before training (epoch 0)."""
        trial, key = self._trials[number], self._ids[number]
        if epoch == 0:
            # A resumed training reports fewer metrics at first than are known already.
            known = {**trial.known, **metrics}
            if self._written(lambda: self._storage.set_trial_system_attr(key, KNOWN, known)):
                self._set(replace(trial, known=known))
            return
        others = {o.metric: metrics[o.metric] for o in self._objectives if o.metric in metrics}
        others.pop("val_accuracy", None)

        def write() -> None:
            if others:
                self._storage.set_trial_system_attr(key, f"{EPOCH}{epoch}", others)
            if "val_accuracy" in metrics:
                self._storage.set_trial_intermediate_value(key, epoch, metrics["val_accuracy"])

        if not self._written(write):
            return
        # A resumed training starts at its checkpoint, which may be older than the last recorded epoch.
        before = [point for point in trial.curve if point["epoch"] < epoch]
        self._set(replace(trial, curve=(*before, {"epoch": float(epoch), **metrics})))

    def pause(self, number: int) -> Trial:
        """Record that a running trial is paused."""
        trial = replace(self._trials[number], state=PAUSED)
        return self._set_paused(trial, {"curve": list(trial.curve), "known": dict(trial.known)})

    def resume(self, number: int) -> Trial:
        """Record that a paused trial is running again."""
        return self._set_paused(replace(self._trials[number], state=RUNNING), None)

    def _set_paused(self, trial: Trial, paused: Mapping[str, object] | None) -> Trial:
        key = self._ids[trial.number]
        if self._written(lambda: self._storage.set_trial_user_attr(key, "paused", paused)):
            self._set(trial)
        return self._trials[trial.number]

    def finish(
        self, number: int, outcome: Outcome, *, state: str = COMPLETE, reason: str | None = None,
        violations: Sequence[float] = (),
    ) -> Trial:  # fmt: skip
        """Record the end of a trial with an outcome; it has failed if it is complete without one of the objectives.

        Args:
            number: of a running trial.
            outcome: artifacts are relative to the trial's folder.
            state: "complete", "ruled out", "stopped early" or "rejected".
            reason: why the trial ended in this state.
            violations: relative excess over each hard limit; 0 or less where it is met.
        """
        missing = [o.metric for o in self._objectives if o.metric not in outcome.metrics]
        if missing and state == COMPLETE:
            known = ", ".join(sorted(outcome.metrics)) or "none"
            return self.fail(number, f"objective '{missing[0]}' is not among the recorded metrics: {known}")
        trial = replace(
            self._trials[number],
            state=state,
            metrics=dict(outcome.metrics),
            artifacts={kind: f"{trial_folder(number)}/{name}" for kind, name in outcome.artifacts.items()},
            reason=reason,
        )
        return self._end(trial, violations)

    def fail(self, number: int, error: str) -> Trial:
        """Record the end of a trial without an outcome."""
        return self._end(replace(self._trials[number], state=FAILED, error=error))

    @property
    def finalists(self) -> frozenset[int]:
        """Numbers of the trials that were measured together at the end of the run."""
        return frozenset(trial.number for trial in self._trials if trial.final)

    def record_final(
        self,
        metrics: Mapping[int, Mapping[str, float]],
        confusions: Mapping[int, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        """Record the final metrics of all finalists in one write, replacing earlier ones.

        They become attributes of the study, as Optuna does not change finished trials.

        Args:
            metrics: of each finalist.
            confusions: of finalists that were tested: (true class, predicted class, images), most images first.
        """
        cells = {number: tuple((t, p, n) for t, p, n in found) for number, found in (confusions or {}).items()}
        if cells:  # written first, as recorded finalists are not measured again
            self._study.set_user_attr(CONFUSIONS, {str(number): found for number, found in cells.items()})
        self._study.set_user_attr(FINALISTS, {str(number): dict(found) for number, found in metrics.items()})
        for trial in list(self._trials):
            if trial.final or trial.number in metrics:
                final = dict(metrics.get(trial.number, {}))
                self._set(replace(trial, final=final, confusion=cells.get(trial.number, ())))

    def _end(self, trial: Trial, violations: Sequence[float] = ()) -> Trial:
        from optuna.trial import TrialState

        now = datetime.datetime.now().timestamp()
        began = self._began.pop(trial.number, None)
        seconds = now - trial.started if began is None else time.monotonic() - began
        trial = replace(trial, seconds=max(0.0, seconds), ended=now)
        result = {
            "state": trial.state, "metrics": trial.metrics, "artifacts": trial.artifacts, "error": trial.error,
            "reason": trial.reason, "curve": list(trial.curve), "seconds": trial.seconds,
        }  # fmt: skip
        key = self._ids[trial.number]

        def write() -> None:
            if violations:
                self._storage.set_trial_system_attr(key, "constraints", list(violations))
            if self._driver is not None:  # before the end, so that files of finished trials can always be fetched
                self._driver.upload(key, trial.artifacts.values())
            self._storage.set_trial_user_attr(key, "result", result)
            if trial.state == COMPLETE and trial.kind not in (REPEAT, STEP):  # other kinds would change Optuna's front
                values = [trial.metrics[objective.metric] for objective in self._objectives]
                self._storage.set_trial_state_values(key, TrialState.COMPLETE, values)
            else:
                state = TrialState.FAIL if trial.state == FAILED else TrialState.PRUNED
                self._storage.set_trial_state_values(key, state)

        if self._written(write):
            if self._driver is not None:
                self._driver.heartbeat.discard(key)
            self._set(trial)
        return self._trials[trial.number]

    def _written(self, write: Callable[[], None]) -> bool:
        """Call `write` for an unfinished trial; False if another driver has ended the trial."""
        from optuna.exceptions import UpdateFinishedTrialError

        if self._driver is None:
            write()
            return True
        try:
            write()
        except UpdateFinishedTrialError:
            self.sync()
            return False
        return True

    def _first(self, number: int) -> int:
        """The lowest number of a trial that has the candidate of trial `number` and is not superseded."""
        claims = self._claims[_claim(self._trials[number])]
        return next((n for n in claims if self._trials[n].state not in SUPERSEDED), number)

    def _append(self, key: int, trial: Trial) -> None:
        if self._space is not None:
            self._space.confirmed(trial.point)
        self._ids.append(key)
        self._trials.append(trial)
        self._claims.setdefault(_claim(trial), []).append(trial.number)
        self.changed.append(trial.number)

    def _watch(self, driver: Driver, key: int, trial: Trial) -> None:
        if trial.driver == driver.identity:
            driver.heartbeat.add(key)
        else:
            driver.add_first_heartbeat(key)

    def _update(self, trial: Trial) -> None:
        """Take over a change by another driver, which may have considered this driver lost."""
        if self._driver is not None and self.is_own(trial.number):
            self._driver.heartbeat.discard(self._ids[trial.number])
            _log.warning("trial %d was taken over by another driver; its result here is dropped", trial.number)
        self.changed.append(trial.number)
        self._set(trial)

    def _set(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._on_change(trial)


def _claim(trial: Trial) -> tuple[str, int | None, int, str]:
    return trial.kind, trial.parent, trial.repetition, trial.candidate.key
