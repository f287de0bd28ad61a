"""The search phase: chooses the next candidate, stops trials early, and records results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import CHECKPOINT, Outcome, Task
from slimsearch.files import atomic
from slimsearch.loop.derived_candidates import DerivedCandidates
from slimsearch.loop.fidelity import Fidelity
from slimsearch.loop.phases import Attempts
from slimsearch.loop.proposals import Proposals, dominated_on_cost
from slimsearch.loop.stopping import Stopping
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import (
    COMPLETE,
    LOST,
    PAUSED,
    RULED_OUT,
    RUNNING,
    SEARCH,
    STOPPED,
    SUBNET,
    SUPERSEDED,
    Trial,
)
from slimsearch.running_time import running_seconds
from slimsearch.search_spaces import Candidate, JointSpace, Point, Space
from slimsearch.strategies import Failure, Recorded
from slimsearch.strategies.samplers import History, Sampler
from slimsearch.strategies.schedulers import Decision

# Bound on candidates that are ruled out before training, which are not charged to the budget.
_RULED_OUT_PER_TRIAL = 50


@dataclass(frozen=True)
class Budget:
    """The budget of a search.

    Attributes:
        trials: candidates to train, by all drivers together, excluding those ruled out before training and those whose
            networks other trials have trained.
        epochs: of training, for each candidate.
        deadline: value of `running_seconds` after which no trial starts, except those whose networks are trained.
        retries: of a trial whose worker died.
    """

    trials: int
    epochs: int
    deadline: float | None = None
    retries: int = 1

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and running_seconds() >= self.deadline


class ArchitectureSearch:
    """Proposes architectures and records their trials.

    Args:
        space, sampler, ranking, budget: of the search.
        record, directory, seed: of the run.
        fidelity: decides about trials after each epoch; None: all are fully trained.
        stopping: ends the search early; None: it ends when the budget is spent.
        proposing: whether the sampler proposes candidates; False: the strategy offers them.
        kind: of the trials: "search", or "subnet" with weights of a supernet in place of training.
        on_targets: called when the targets of the weighted product are fixed; returns the targets that all drivers use.

    Attributes:
        ranking: the current ranking; the search fixes its targets.
        stopping: see above.
        open: whether the strategy may still offer candidates.
        exhausted: whether every candidate of the space was tried.
    """

    def __init__(
        self,
        space: Space,
        sampler: Sampler,
        ranking: Ranking,
        record: Record,
        directory: RunDirectory,
        budget: Budget,
        *,
        seed: int,
        fidelity: Fidelity | None = None,
        stopping: Stopping | None = None,
        proposing: bool = True,
        kind: str = SEARCH,
        on_targets: Callable[[Mapping[str, float]], Mapping[str, float]] = lambda targets: targets,
    ) -> None:
        self._space, self._sampler = space, sampler
        self._on_targets = on_targets
        # The process may have been killed between the trial that fixed the targets and `on_targets`.
        self.ranking = ranking = self._with_fixed_targets(ranking, record)
        self._record = record
        self._directory = directory
        self._budget = budget
        self._seed = seed
        self._proposals = Proposals(space, sampler, ranking.sampler_objectives(), seed)
        self.stopping = stopping or Stopping(ranking, {}, None)
        self._fidelity = fidelity
        self._attempts = Attempts(budget.retries)
        self._decided: dict[int, tuple[str, str]] = {}  # running trial -> its final state and reason
        self.open = not proposing
        self._proposing = proposing
        self.exhausted = False
        self._kind = kind
        self._running: set[int] = set()
        self._ruled_out: set[int] = set()
        self._revision = space.revision
        self._index()
        self._interrupted = [n for n in self._numbers if record.trials[n].state == RUNNING and record.is_own(n)]
        self._changes_read = len(record.changed)
        if fidelity is not None:
            fidelity.rank_by(ranking, [])
        for number in self._numbers:
            self._update(record.trials[number])

    @property
    def length(self) -> int:
        """Maximum number of trained candidates."""
        return min(self._budget.trials, self._space.size)

    def ask(self) -> Task | None:
        """An interrupted, a resumed or a new trial; None if there is none now."""
        self._record.sync()
        self._catch_up()
        while self._interrupted:
            trial = self._record.trials[self._interrupted.pop(0)]
            if trial.state == RUNNING and self._goes_on(trial):
                return self._task(trial)
        more = not self._ended() and (self._proposing or self.open)
        if self._fidelity is not None and not self._budget.late and self.stopping.reason is None:
            while (pair := self._fidelity.exploit(more)) is not None:
                self._copy(*pair)
            number = self._without_training()
            if number is None:
                number = self._fidelity.resume(more, self._record.is_own)
            if number is not None:
                proceeding = self._record.resume(number)
                return self._task(proceeding) if proceeding.state == RUNNING else self.ask()
        if self._proposing and self.stopping.reason is None:
            # Also after the deadline: the networks are trained, and only their files are missing.
            derived = self._derived.next(self._history)
            if derived is not None:
                return self._begin(*derived) or self.ask()
        if not self.open and more and (self._fidelity is None or self._fidelity.may_begin(more)):
            candidate = next(iter(self._lost.values()), None)
            if candidate is None:
                candidate = self._proposed()
            if candidate is not None:
                return self._begin(candidate) or self.ask()
            self.exhausted = True
            return self.ask()  # without new trials, a paused one may be due
        if self._nothing_due(more):
            self._end_paused()
        return None

    def _without_training(self) -> int | None:
        """A paused trial whose network another trial has trained in the meantime."""
        if not isinstance(self._space, JointSpace) or self._space.steps is None or not self._space.recipes.compresses:
            return None
        trials = [self._record.trials[number] for number in self._numbers]
        paused = {t.number: self._network(t) for t in trials if t.state == PAUSED and self._record.is_own(t.number)}
        trained = {self._network(trial) for trial in trials if trial.state == COMPLETE} if paused else ()
        return next((number for number, network in paused.items() if network in trained), None)

    def _network(self, trial: Trial) -> str:
        """The key of the architecture and the training of its network."""
        return replace(trial.candidate, recipe={}).key

    def _proposed(self) -> Candidate | None:
        """The sampler's next candidate, of which the space may learn."""
        while True:
            if self._revision != self._space.revision:
                self._revision = self._space.revision
                self._history.memo.clear()
            candidate = self._proposals.next(self._history, len(self._record.trials))
            if candidate is None:
                return None
            try:
                confirmed = self._space.candidate(self._space.confirmed(self._space.point(candidate)))
            except SlimsearchError:
                if self._revision == self._space.revision:
                    raise
                continue  # the space has learned that it is ruled out
            if confirmed.key not in self._number_of or self._revision == self._space.revision:
                return confirmed

    def waits(self) -> bool:
        """Whether another driver has unfinished trials, after which others may be due."""
        return self._record.others_have(self._kind, RUNNING, PAUSED)

    def offer(self, architecture: Point) -> Task | Recorded | None:
        """See `slimsearch.strategies.Search`."""
        candidate = self._space.candidate(self._space.confirmed(self._space.canonical(architecture)))
        number = self._number_of.get(candidate.key)
        if number is not None:
            return self.recorded(number) or Recorded({}, None, running=number)
        return None if self._ended() else self._begin(candidate)

    def close(self) -> None:
        """End the strategy's offers."""
        self.open = False

    def rank_by(self, ranking: Ranking) -> None:
        """Switch to another ranking."""
        self.ranking = ranking
        self._history = self._known_history()
        if self._fidelity is not None:
            self._fidelity.rank_by(ranking, [self._record.trials[number] for number in self._numbers])

    def recorded(self, number: int) -> Recorded | None:
        """See `slimsearch.strategies.Search`."""
        return None if self._record.trials[number].state in (RUNNING, PAUSED) else self._recorded(number)

    def _recorded(self, number: int) -> Recorded:
        losses = self._history.observations[self._history_index[number]].losses
        return Recorded(self._record.trials[number].metrics, losses)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch; epoch 0 rules out candidates that break a limit or are dominated on cost."""
        if epoch == 0:
            trial, certain = self._record.trials[number], _certain(metrics)
            reason = self.ranking.broken(certain) or dominated_on_cost(
                self.ranking, trial.candidate, certain, (self._record.trials[n] for n in self._numbers)
            )
            if reason is not None:
                self._decided[number] = RULED_OUT, reason
                return False
        if self._fidelity is not None and 0 < epoch <= self._record.trials[number].epochs_done:
            return True  # an epoch that is repeated because its checkpoint was lost
        self._record.epoch(number, epoch, metrics)
        if self._record.trials[number].state == LOST:
            return False
        if self._fidelity is None or epoch == 0:
            return True
        decision = self._fidelity.after_epoch(self._record.trials[number])
        if decision is Decision.PAUSE:
            self._decided[number] = PAUSED, ""
        elif decision is Decision.STOP:
            self._decided[number] = STOPPED, _not_promising(epoch)
        return decision is Decision.CONTINUE

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record the end of a trial, or retry it if its worker died."""
        self._running.discard(number)
        if self._record.trials[number].state == LOST:  # another driver evaluates the candidate
            self._decided.pop(number, None)
            self._catch_up()
        elif isinstance(result, Failure):
            self._decided.pop(number, None)
            if self._attempts.another(number, result):
                self._interrupted.append(number)
            else:
                self._update(self._record.fail(number, result.error))
        else:
            self._end(number, result, *self._decided.pop(number, (None, "")))

    def _end(self, number: int, outcome: Outcome, state: str | None, reason: str) -> None:
        if state == PAUSED:
            self._update(self._record.pause(number))
        elif state == STOPPED:
            self._stop(number, reason)
        elif state == RULED_OUT:
            self._update(self._record.finish(number, outcome, state=RULED_OUT, reason=reason))
        else:
            self._complete(number, outcome)

    def _complete(self, number: int, outcome: Outcome) -> None:
        violations = self.ranking.violations(outcome.metrics)
        reason = self.ranking.broken(outcome.metrics)
        self._update(self._record.finish(number, outcome, reason=reason, violations=violations))

    def _catch_up(self) -> None:
        """Process all changed trials, including those of other drivers."""
        changed = self._record.changed[self._changes_read :]
        self._changes_read += len(changed)
        for trial in (self._record.trials[number] for number in changed):
            if trial.kind == self._kind:
                self._update(trial)

    def _goes_on(self, trial: Trial) -> bool:
        """Whether an interrupted trial continues; otherwise pause or stop it at its last epoch."""
        if self._fidelity is None or not trial.curve:
            return True
        decision = self._fidelity.after_epoch(trial)
        if decision is Decision.PAUSE:
            self._update(self._record.pause(trial.number))
        elif decision is Decision.STOP:
            self._stop(trial.number, _not_promising(trial.epochs_done))
        return decision is Decision.CONTINUE

    def _begin(self, candidate: Candidate, parent: int | None = None) -> Task | None:
        """Start a trial of `candidate`, whose network trial `parent` has trained; None if another driver was first."""
        # If recipes are searched too, candidates share trained networks, which depend on the seed.
        common = isinstance(self._space, JointSpace) and self._space.recipes.compresses
        trial = self._record.start(
            candidate, kind=self._kind, fidelity=self._budget.epochs, seed=self._seed, parent=parent, common_seed=common
        )
        self._catch_up()
        if (
            parent is None
            and self._record.shared
            and trial.state == RUNNING
            and self._charged(trial.number) >= self._budget.trials
        ):
            reason = f"other drivers had started the last of {self._budget.trials} trials"
            self._update(self._record.withdraw(trial.number, reason))
            return None
        return self._task(trial) if trial.state == RUNNING else None

    def _copy(self, ended: int, best: int) -> None:
        """Stop a paused trial, and continue a copy of a better one with other hyper-parameters."""
        assert self._fidelity is not None
        assert isinstance(self._space, JointSpace)
        original = self._record.trials[best]
        rng = np.random.default_rng([self._seed, len(self._record.trials)])
        # The learning-rate schedule of the checkpoint depends on the batch size.
        choices = [c for c in self._space.recipes.training if not c.label.endswith(".batch_size")]
        point = self._fidelity.perturbed(choices, original.point, rng)
        copy = self._record.start(
            self._space.candidate(point), kind=self._kind, fidelity=self._budget.epochs, seed=self._seed, parent=best
        )
        self._record.epoch(copy.number, 0, original.known)
        for known in original.curve:
            metrics = {name: value for name, value in known.items() if name != "epoch"}
            self._record.epoch(copy.number, int(known["epoch"]), metrics)
        source, target = (self._directory.trial_directory(n) / CHECKPOINT for n in (best, copy.number))
        if source.is_file():
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)
        self._catch_up()
        self._update(self._record.pause(copy.number))
        self._stop(
            ended, f"after epoch {original.epochs_done}: trial {copy.number}, a copy of {best}, goes on in its place"
        )

    def _update(self, trial: Trial) -> None:
        """Update all data derived from the record for a changed trial."""
        if trial.state in SUPERSEDED or not self._record.stands(trial.number):
            self._remove(trial)
            return
        if trial.number not in self._history_index:
            self._add(trial)
        if trial.state == RULED_OUT:
            self._ruled_out.add(trial.number)
        if trial.state == COMPLETE:
            self._fix_targets()
            if self._record.is_own(trial.number):
                self._derived.add(trial)
        product = self.ranking.product(self._record.trials)
        self._history.change(self._history_index[trial.number], self.ranking.observation(trial, product))
        if self._fidelity is not None:
            self._fidelity.update(trial)
        scored = product is not None and trial.state == COMPLETE
        self.stopping.update(trial, product.score(trial.metrics) if product is not None and scored else None)

    def _add(self, trial: Trial) -> None:
        self._numbers.append(trial.number)
        if trial.parent is not None:
            self._children.add(trial.number)
        self._number_of[trial.candidate.key] = trial.number
        self._lost.pop(trial.candidate.key, None)
        self._history_index[trial.number] = len(self._history.observations)
        self._history.add(self.ranking.observation(trial, None))

    def _remove(self, trial: Trial) -> None:
        """Remove a superseded trial; its candidate is tried again if no other trial has it."""
        if trial.number in self._history_index:
            self._index()
        elif trial.state == LOST and trial.candidate.key not in self._number_of:
            self._lost[trial.candidate.key] = trial.candidate
        if self._fidelity is not None and trial.state in SUPERSEDED:
            self._fidelity.update(trial)

    def _index(self) -> None:
        """Derive the indices and the history from the record."""
        trials = [t for t in self._record.trials if t.kind == self._kind]
        standing = [t for t in self._record.standing if t.kind == self._kind]
        self._numbers = [t.number for t in standing]
        self._children = {t.number for t in standing if t.parent is not None}
        self._derived = DerivedCandidates(self._space, self._sampler, self.ranking.sampler_objectives())
        for trial in standing:
            if trial.state == COMPLETE and self._record.is_own(trial.number):
                self._derived.add(trial)
        self._number_of = {t.candidate.key: t.number for t in standing}
        self._history_index = {number: index for index, number in enumerate(self._numbers)}
        self._lost = {
            t.candidate.key: t.candidate for t in trials if t.state == LOST and t.candidate.key not in self._number_of
        }
        self._history = self._known_history()

    def _known_history(self) -> History:
        """The sampler's history, without trials that are not yet indexed."""
        trials = [t for t in self._record.trials if t.kind != self._kind or t.number in self._history_index]
        return self.ranking.history(trials, self._kind)

    def _fix_targets(self) -> None:
        if not self.ranking.weighted or self.ranking.targets is not None:
            return
        ranking = self._with_fixed_targets(self.ranking, self._record)
        if ranking is not self.ranking:
            self.rank_by(ranking)
        else:
            self._history = self._known_history()  # the medians have changed

    def _with_fixed_targets(self, ranking: Ranking, record: Record) -> Ranking:
        """The ranking with fixed targets, once they can be computed."""
        fixed = ranking.with_targets(record.trials)
        if fixed is ranking or fixed.targets is None:
            return ranking
        return replace(fixed, targets=self._on_targets(fixed.targets))

    def _charged(self, before: int | None = None) -> int:
        """Number of trials that are charged to the budget, optionally only of those below number `before`."""
        if before is None:
            return len(self._numbers) - len(self._ruled_out | self._children)
        free = self._ruled_out | self._children
        return sum(number < before and number not in free for number in self._numbers)

    def _ended(self) -> bool:
        return (
            (self.exhausted and not self._lost)
            or self._charged() >= self._budget.trials
            or len(self._ruled_out) >= self._budget.trials * _RULED_OUT_PER_TRIAL
            or self._budget.late
            or self.stopping.reason is not None
        )

    def _nothing_due(self, more: bool) -> bool:
        """Whether no trial of any driver is running or due, so that paused trials can end."""
        if self._running or self.open or self._budget.late or self._record.others_have(self._kind, RUNNING):
            return False
        return self._fidelity is not None and not self._fidelity.due(more)

    def _end_paused(self) -> None:
        """Stop all paused trials of this driver at the end of the search."""
        for number in self._numbers:
            trial = self._record.trials[number]
            if trial.state == PAUSED and self._record.is_own(number):
                self._stop(number, f"after epoch {trial.epochs_done}: others were better")

    def _stop(self, number: int, reason: str) -> None:
        trial = self._record.trials[number]
        last = {k: v for k, v in trial.curve[-1].items() if k != "epoch"} if trial.curve else {}
        self._update(self._record.finish(number, Outcome({**trial.known, **last}), state=STOPPED, reason=reason))
        (self._directory.trial_directory(number) / CHECKPOINT).unlink(missing_ok=True)

    def _task(self, trial: Trial) -> Task:
        self._running.add(trial.number)
        if self._fidelity is not None:
            self._fidelity.update(trial)
        return Task(
            number=trial.number,
            candidate=trial.candidate,
            fidelity=trial.fidelity,
            seed=trial.seed,
            directory=self._directory.trial_directory(trial.number),
            epochs_done=trial.epochs_done,
            inherit=self._kind == SUBNET,
        )


def _certain(known: Mapping[str, float]) -> dict[str, float]:
    """Metrics that may rule out a candidate: excludes a latency measured on a busy machine."""
    disturbed = known.get("latency_calm") == 0
    return {metric: value for metric, value in known.items() if not (disturbed and metric == "latency_ms")}


def _not_promising(epoch: int) -> str:
    return f"after epoch {epoch}: no longer worth it"
