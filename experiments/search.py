"""The search loop's state: what to try next, what to stop, what to record. The record's one writer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evaluators import Objective, Outcome, Task
from experiments.ranking import Ranking
from experiments.record import FAILED, RULED_OUT, RUNNING, SEARCH, Record, Trial
from experiments.run_directory import RunDirectory
from search_spaces import Candidate, ModelSpace, Point
from slimsearch_errors import SlimsearchError
from strategies import Failure
from strategies.samplers import History, Sampler

# A sampler that proposes only what was tried gets so many further draws before others look for something new.
_DRAWS = 20
# Spaces up to this size are listed when everything near has been tried.
_LISTABLE = 200_000
# What is ruled out before training costs no trial, so it is bounded by itself.
_RULED_OUT_PER_TRIAL = 50


class ArchitectureSearch:
    """Proposes architectures and records what becomes of them.

    Args:
        space, sampler, ranking: what is searched, and how.
        record, directory: where it is kept.
        trials: candidates to train; those ruled out before training do not count.
        epochs: of training, for each.
        seed: of the run.
        deadline: `time.monotonic` after which nothing new is begun.
        retries: for a trial whose worker died.
        on_targets: told when the targets of the weighted product are fixed.
    """

    def __init__(
        self,
        space: ModelSpace,
        sampler: Sampler,
        ranking: Ranking,
        record: Record,
        directory: RunDirectory,
        *,
        trials: int,
        epochs: int,
        seed: int,
        deadline: float | None = None,
        retries: int = 1,
        on_targets: Callable[[Mapping[str, float]], None] = lambda targets: None,
    ) -> None:
        self._space = space
        self._sampler = sampler
        self.ranking = ranking
        self._record = record
        self._directory = directory
        self._budget = trials
        self._epochs = epochs
        self._seed = seed
        self._deadline = deadline
        self._on_targets = on_targets
        self._again = [t.number for t in record.trials if t.state == RUNNING and t.kind == SEARCH]
        self._attempts = Attempts(retries)
        self._stopped: dict[int, str] = {}
        self._tried = {t.candidate for t in record.trials if t.kind == SEARCH}
        self.exhausted = False

    def ask(self) -> Task | None:
        """An interrupted trial, or a new one; None when the budget is spent or the space used up."""
        if self._again:
            return self._task(self._record.trials[self._again.pop(0)])
        mine = [t for t in self._record.trials if t.kind == SEARCH]
        ruled_out = sum(t.state == RULED_OUT for t in mine)
        spent = len(mine) - ruled_out >= self._budget or ruled_out >= self._budget * _RULED_OUT_PER_TRIAL
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if self.exhausted or spent or late:
            return None
        candidate = self._propose()
        if candidate is None:
            self.exhausted = True
            return None
        self._tried.add(candidate)
        number = len(self._record.trials)
        trial = self._record.start(candidate, kind=SEARCH, fidelity=self._epochs, seed=trial_seed(self._seed, number))
        return self._task(trial)

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch; before the first one, see whether a limit is already broken."""
        if epoch == 0:
            broken = self.ranking.broken(metrics)
            if broken is not None:
                self._stopped[number] = broken
                return False
        self._record.epoch(number, epoch, metrics)
        return True

    def tell(self, number: int, result: Outcome | Failure) -> None:
        """Record the end of a trial, or put it back if its worker died."""
        if isinstance(result, Failure):
            if self._attempts.another(number, result):
                self._again.append(number)
            else:
                self._record.fail(number, result.error)
            return
        if number in self._stopped:
            self._record.finish(number, result, state=RULED_OUT, reason=self._stopped.pop(number))
            return
        missing = [o.metric for o in self.ranking.objectives if o.metric not in result.metrics]
        if missing:
            known = ", ".join(sorted(result.metrics))
            raise SlimsearchError(f"objective '{missing[0]}' is not among the recorded metrics: {known}")
        violations = self.ranking.violations(result.metrics)
        self._record.finish(number, result, reason=self.ranking.broken(result.metrics), violations=violations)
        ranking = self.ranking.with_targets(self._record.trials)
        if ranking is not self.ranking and ranking.targets is not None:
            self.ranking = ranking
            self._on_targets(ranking.targets)

    def _propose(self) -> Candidate | None:
        """What the sampler proposes, or, if it only repeats itself, something near it that is new."""
        rng = np.random.default_rng([self._seed, len(self._record.trials)])
        history = self.ranking.history(self._record.trials)
        objectives = self.ranking.sampler_objectives()
        candidate = Candidate({})
        for _ in range(_DRAWS):
            candidate = self._space.candidate(self._point(objectives, history, rng))
            if candidate not in self._tried:
                return candidate
        around = [self._space.candidate(p) for p in self._space.neighbours(candidate.architecture, rng)]
        new = [c for c in around if c not in self._tried]
        if not new and self._space.size <= _LISTABLE:
            new = [c for point in self._space.grid() if (c := self._space.candidate(point)) not in self._tried]
        elif not new:
            drawn = (self._space.candidate(self._space.sample(rng)) for _ in range(1000))
            new = [c for c in drawn if c not in self._tried]
        return new[int(rng.integers(len(new)))] if new else None

    def _point(self, objectives: Sequence[Objective], history: History, rng: np.random.Generator) -> Point:
        try:
            return self._sampler.propose(self._space, objectives, history, rng)
        except SlimsearchError:
            raise
        except Exception as error:  # a user's sampler may raise anything
            name = type(self._sampler).__name__
            raise SlimsearchError(f"sampler {name} failed: {type(error).__name__}: {error}") from error

    def _task(self, trial: Trial) -> Task:
        return Task(
            number=trial.number,
            candidate=trial.candidate,
            fidelity=trial.fidelity,
            seed=trial.seed,
            directory=self._directory.trial_directory(trial.number),
        )


class Attempts:
    """Which trials are tried again: those whose worker died, up to `retries` times each."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._lost: dict[int, int] = {}

    def another(self, number: int, failure: Failure) -> bool:
        """Whether the trial that failed so is to be tried again."""
        self._lost[number] = self._lost.get(number, 0) + 1
        return failure.worker_died and self._lost[number] <= self._retries


def trial_seed(run_seed: int, number: int) -> int:
    """The seed of a trial: different for each, the same after a resume."""
    return int(np.random.SeedSequence([run_seed, number]).generate_state(1)[0] >> 1)


def refuse_if_nothing_is_left(ranking: Ranking, record: Record) -> None:
    """Explain a search that ended without a single candidate to offer.

    Raises:
        SlimsearchError: every trial failed, or no candidate keeps the limits; the line says how near they came.
    """
    trials = [t for t in record.trials if t.kind == SEARCH]
    if ranking.feasible(trials):
        return
    if not trials:
        raise SlimsearchError("no candidate was begun: --timeout was over before the first one")
    failed = [t for t in trials if t.state == FAILED]
    if len(failed) == len(trials):
        raise SlimsearchError(f"all {len(failed)} trials failed; the first one: {failed[0].error}")
    for limit in ranking.limits:
        values = [t.metrics[limit.metric] for t in trials if limit.metric in t.metrics]
        if values and all(limit.broken({limit.metric: value}) for value in values):
            best = min(values) if limit.upper else max(values)
            raise SlimsearchError(
                f"no candidate meets {limit.flag} {limit.bound:g}: the best of {len(values)} has "
                f"{limit.metric} {best:.6g}"
            )
    flags = " and ".join(f"{limit.flag} {limit.bound:g}" for limit in ranking.limits)
    raise SlimsearchError(f"no candidate meets {flags} at once ({len(trials)} tried)")
