"""The record of a run: an Optuna study, the only truth, readable by every Optuna tool.

A trial is one write when it starts (a template with all its parameters) and is finished when its state is on
disk. Its result (metrics, artifacts, curve) is written just before, as one attribute.

The journal of a run directory has one writer. A study in a database has a driver on each machine, and a trial is
written by the driver that began it, up to its end; of the others' trials a driver knows what `Record.sync` has read.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, Outcome
from slimsearch.reading import mismatch
from slimsearch.record._optuna_private import storage_of, study_id, trial_id
from slimsearch.record.trial import (
    COMPLETE,
    EPOCH,
    FAILED,
    KNOWN,
    PAUSED,
    REPEAT,
    RUNNING,
    STEP,
    SUPERSEDED,
    WITHDRAWN,
    Trial,
    thaw,
    trial_folder,
    trial_seed,
)  # fmt: skip
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers import distribution

if TYPE_CHECKING:
    import optuna

    from slimsearch.record.shared.driver import Driver

_log = logging.getLogger(__name__)

_FINALISTS, _CONFUSIONS = "finalists", "confusions"


class Record:
    """Trials in memory and in the study; every change goes to the study first.

    Args:
        study: in the run directory's journal, or in a database.
        space: of what is tried; None: trials are read, none begins.
        objectives: whose metrics are the study's values.
        on_change: told of a trial after each change.
        driver: this process among several; None: it is the only one that writes.

    Attributes:
        changed: numbers of the trials that have begun, and of those that another driver has changed, in that order.
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
        self._distributions = {choice.label: distribution(choice) for choice in choices}
        self._choices = {choice.label: choice for choice in choices}
        self._objectives = tuple(objectives)
        self._on_change = on_change
        self._driver = driver
        self._ids: list[int] = []
        # `time.monotonic` when a trial began that this process has begun: the clock may be put back or forward.
        self._began: dict[int, float] = {}
        self._trials: list[Trial] = []
        self._claims: dict[tuple[str, int | None, int, str], list[int]] = {}
        self.changed: list[int] = []
        for frozen in study.get_trials(deepcopy=False):
            trial = thaw(frozen)
            if driver is not None and trial.unfinished:
                self._watch(driver, trial_id(frozen), trial)
            self._append(trial_id(frozen), trial)
        finalists = study.user_attrs.get(_FINALISTS, {})
        wrong = mismatch(finalists, {str: {str: float}}, _FINALISTS)
        numbers = {str(trial.number): trial.number for trial in self._trials}
        if wrong is not None or not finalists.keys() <= numbers.keys():
            raise SlimsearchError(f"the record is damaged: {wrong or 'a finalist is none of its trials'}")
        confusions = study.user_attrs.get(_CONFUSIONS, {})  # which runs of before have not
        wrong = mismatch(confusions, {str: [[int]]}, _CONFUSIONS)
        if wrong is not None or any(len(cell) != 3 or min(cell) < 0 for cells in confusions.values() for cell in cells):
            raise SlimsearchError(f"the record is damaged: {wrong or 'a confusion matrix is none'}")
        for number, metrics in finalists.items():
            cells = tuple((true, taken, images) for true, taken, images in confusions.get(number, ()))
            self._trials[numbers[number]] = replace(self._trials[numbers[number]], final=metrics, confusion=cells)

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials, by number."""
        return self._trials

    @property
    def shared(self) -> bool:
        """Whether there are other drivers."""
        return self._driver is not None

    @property
    def standing(self) -> Sequence[Trial]:
        """The trials that stand for their candidates, by number."""
        return [t for t in self._trials if self.stands(t.number)] if self.shared else self._trials

    def stands(self, number: int) -> bool:
        """Whether a trial stands for its candidate: it is not superseded, and no earlier one has the same candidate."""
        return self._trials[number].state not in SUPERSEDED and (not self.shared or self._first(number) == number)

    def mine(self, number: int) -> bool:
        """Whether this driver began the trial."""
        return self._driver is None or self._trials[number].driver == self._driver.identity

    def others(self, kind: str, *states: str) -> bool:
        """Whether another driver has a trial of `kind` in one of `states`."""
        return self.shared and any(
            t.kind == kind and t.state in states and not self.mine(t.number) for t in self._trials
        )

    def sync(self) -> None:
        """Read what other drivers have recorded, after ending the trials of those that are lost."""
        if self._driver is None:
            return
        self._driver.end_lost()
        for frozen in self._study.get_trials(deepcopy=False):
            number = frozen.number
            if number == len(self._trials):
                trial = thaw(frozen)
                if trial.unfinished:
                    self._watch(self._driver, trial_id(frozen), trial)
                self._append(trial_id(frozen), trial)
                self._on_change(trial)
            elif self._trials[number].unfinished and (frozen.state.is_finished() or not self.mine(number)):
                trial = thaw(frozen)
                if trial != self._trials[number]:
                    self._taken_in(trial)

    def wait(self) -> None:
        """Give other drivers time to go on, and read what they have recorded."""
        from slimsearch.record.shared.study import POLL_SECONDS

        time.sleep(POLL_SECONDS)
        self.sync()

    def fetch(self, trial: Trial) -> None:
        """See to it that the artifacts of a finished trial are in the run directory."""
        if self._driver is not None:
            self._driver.fetch(self._storage.get_trial(self._ids[trial.number]), trial.artifacts.values())

    def start(
        self, candidate: Candidate, *, kind: str, fidelity: int, seed: int, parent: int | None = None,
        repeats: int | None = None, turn: int = 0, common_seed: bool = False, point: Point | None = None,
    ) -> Trial:  # fmt: skip
        """Record that `candidate` is being evaluated.

        Where there are other drivers, the trial is this driver's claim, and comes back withdrawn if another one's was
        first. The storage gives out numbers one after the other, each when the trial before it can be read (PostgreSQL
        locks the study's row meanwhile, SQLite the file). So whoever reads the study after its own trial is there sees
        every trial with a lower number, and of several with the same candidate the lowest number has it.

        Args:
            candidate: what is evaluated.
            kind: of the trial.
            fidelity: epochs of training.
            seed: of the run; that of the trial follows from it and from the trial's number.
            parent: number of the trial whose network it starts from.
            repeats, turn: number of the trial that it repeats, and the how manieth repetition it is.
            common_seed: its seed is that of all trials which are begun so: what they have in common is the same.
            point: under which it is recorded, where the candidate itself is none of the space.
        """
        from optuna.trial import FrozenTrial, TrialState

        now = datetime.datetime.now()
        number = len(self._trials)
        assert self._space is not None
        labels = dict(point) if point is not None else self._space.point(candidate)
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
            attributes |= {"repeats": repeats, "turn": turn}
        if self._driver is not None:
            attributes |= {"driver": self._driver.identity, "host": self._driver.host}
        template = FrozenTrial(
            number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, values=None, datetime_start=now,
            datetime_complete=None,
            params={label: self._choices[label].text(value) for label, value in labels.items()},
            distributions={label: self._distributions[label] for label in labels},
            user_attrs=attributes, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        key = self._storage.create_new_trial(self._study_id, template_trial=template)
        if self._driver is not None:
            return self._claimed(self._driver, key, None if common_seed else seed)
        trial = Trial(
            number, candidate, kind, RUNNING, fidelity, own_seed, parent, started=now.timestamp(),
            repeats=repeats, turn=turn, labels=labels,
        )  # fmt: skip
        self._began[number] = time.monotonic()
        self._append(key, trial)
        self._on_change(trial)
        return trial

    def _claimed(self, driver: Driver, key: int, seed: int | None) -> Trial:
        driver.heartbeat.add(key)
        number = self._storage.get_trial_number_from_id(key)
        self._began[number] = time.monotonic()
        if seed is not None and number != len(self._trials):  # others have begun trials meanwhile
            self._storage.set_trial_user_attr(key, "seed", trial_seed(seed, number))
        known = len(self._trials)
        self.sync()
        for earlier in range(known, number):
            if self.mine(earlier):  # the connection broke when it was there, and Optuna has tried once more
                self.withdraw(earlier, f"the same as trial {number}: it was recorded twice")
        first = self._first(number)
        if first != number:
            return self.withdraw(number, f"the same as trial {first} of another driver")
        return self._trials[number]

    def withdraw(self, number: int, reason: str) -> Trial:
        """Record that a trial that was only just begun is not evaluated."""
        return self._end(replace(self._trials[number], state=WITHDRAWN, reason=reason))

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record what is known before training (epoch 0), or the accuracy after an epoch, of a running trial."""
        trial, key = self._trials[number], self._ids[number]
        if epoch == 0:
            # Of a training that goes on, more is known already than is told first.
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
        # A continued training begins where its checkpoint is, which may be before the last recorded epoch.
        before = [point for point in trial.curve if point["epoch"] < epoch]
        self._set(replace(trial, curve=(*before, {"epoch": float(epoch), **metrics})))

    def pause(self, number: int) -> Trial:
        """Record that a running trial waits, to be continued or not."""
        trial = replace(self._trials[number], state=PAUSED)
        return self._marked(trial, {"curve": list(trial.curve), "known": dict(trial.known)})

    def proceed(self, number: int) -> Trial:
        """Record that a paused trial is running again."""
        return self._marked(replace(self._trials[number], state=RUNNING), None)

    def _marked(self, trial: Trial, paused: Mapping[str, object] | None) -> Trial:
        key = self._ids[trial.number]
        if self._written(lambda: self._storage.set_trial_user_attr(key, "paused", paused)):
            self._set(trial)
        return self._trials[trial.number]

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
        return self._end(trial, violations)

    def fail(self, number: int, error: str) -> Trial:
        """Record the end of a trial that gave none."""
        return self._end(replace(self._trials[number], state=FAILED, error=error))

    @property
    def finalists(self) -> frozenset[int]:
        """Numbers of the trials that were measured together at the end."""
        return frozenset(trial.number for trial in self._trials if trial.final)

    def finalise(
        self,
        metrics: Mapping[int, Mapping[str, float]],
        confusions: Mapping[int, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        """Record what was measured at the end, of all finalists in one write, in place of earlier ones.

        They are finished trials, which Optuna guards against changes: this belongs to the study.

        Args:
            metrics: of each finalist.
            confusions: of those whose test split was read: (true class, predicted class, images), most images first.
        """
        cells = {number: tuple((t, p, n) for t, p, n in found) for number, found in (confusions or {}).items()}
        if cells:  # first: a finalist that is recorded is not measured again
            self._study.set_user_attr(_CONFUSIONS, {str(number): found for number, found in cells.items()})
        self._study.set_user_attr(_FINALISTS, {str(number): dict(found) for number, found in metrics.items()})
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
            if self._driver is not None:  # before its end: the files of a finished trial can always be fetched
                self._driver.upload(key, trial.artifacts.values())
            self._storage.set_trial_user_attr(key, "result", result)
            if trial.state == COMPLETE and trial.kind not in (REPEAT, STEP):  # Optuna's own front is ours
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
        """Whether what `write` does for an unfinished trial could be done: another driver may have ended it."""
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
        """The lowest number, of trials that are not superseded, with the candidate of trial `number`."""
        claims = self._claims[_claim(self._trials[number])]
        return next((n for n in claims if self._trials[n].state not in SUPERSEDED), number)

    def _append(self, key: int, trial: Trial) -> None:
        self._ids.append(key)
        self._trials.append(trial)
        self._claims.setdefault(_claim(trial), []).append(trial.number)
        self.changed.append(trial.number)

    def _watch(self, driver: Driver, key: int, trial: Trial) -> None:
        if trial.driver == driver.identity:
            driver.heartbeat.add(key)
        else:
            driver.seen(key)

    def _taken_in(self, trial: Trial) -> None:
        """Another driver has changed a trial; if it was this one's, it was taken for lost."""
        if self._driver is not None and self.mine(trial.number):
            self._driver.heartbeat.discard(self._ids[trial.number])
            _log.warning("trial %d was taken over by another driver: its result here does not count", trial.number)
        self.changed.append(trial.number)
        self._set(trial)

    def _set(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._on_change(trial)


def _claim(trial: Trial) -> tuple[str, int | None, int, str]:
    return trial.kind, trial.parent, trial.turn, trial.candidate.key
