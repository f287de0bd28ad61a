"""Proposals of new candidates, and a check that rules out candidates that are already dominated on cost."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Objective
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.report.tables import metrics_text
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers import History, Sampler, keeps_limits

# Proposals of a sampler that may repeat tried candidates, before neighbors are proposed instead.
_DRAWS = 20
# Up to this size, a space is enumerated once all neighbors have been tried.
_LISTABLE = 200_000
# Number of last trials whose share of ruled-out ones measures how hard the limits are to meet; and number of trials
# nearest to the limits, which are mutated in place of the sampler's proposals.
_RECENT, _NEAREST = 20, 10
STANDARD_ERRORS = 2.0
"""Differences of a metric by up to so many standard errors are noise."""
_Z95 = 1.96
# Relative difference between two measurements of the same file.
_LATENCY_TOLERANCE = 0.03


class Proposals:
    """Proposes new candidates: none twice, and few that break limits.

    Most samplers learn from trained candidates only. If limits rule out a share of the candidates before training, the
    same share of the proposals are mutations of the candidates nearest to the limits. The random numbers of a trial
    follow from `seed`, that of the run, and the trial's number.
    """

    def __init__(self, space: Space, sampler: Sampler, objectives: Sequence[Objective], seed: int) -> None:
        self._space, self._sampler, self._objectives, self._seed = space, sampler, objectives, seed

    def next(self, history: History, number: int) -> Candidate | None:
        """A candidate for trial `number` that is not in `history`, or None if every candidate was tried."""
        reference = self._space.reference()
        if reference is not None and not history.tried(reference):
            return self._space.candidate(reference)
        rng = np.random.default_rng([self._seed, number])
        share = _ruled_out(history)
        if share > 0 and rng.random() < share and not keeps_limits(self._sampler, self._space, history):
            candidate = self._nearer(history, rng)
            if candidate is not None:
                return candidate
        candidate = Candidate({})
        for _ in range(_DRAWS):
            candidate = self._space.candidate(self._point(history, rng))
            if not history.tried(self._space.point(candidate)):
                return candidate
        new = self._new(history, self._space.neighbours(self._space.point(candidate), rng))
        if not new and self._space.size <= _LISTABLE:
            new = self._new(history, self._space.grid())
        elif not new:
            new = self._new(history, (self._space.sample(rng) for _ in range(1000)))
        return new[int(rng.integers(len(new)))] if new else None

    def _nearer(self, history: History, rng: np.random.Generator) -> Candidate | None:
        known = [o for o in history.observations if o.losses is not None or o.violation > 0]
        by_chance = rng.random(len(known))
        best = heapq.nsmallest(_NEAREST, range(len(known)), key=lambda i: (known[i].violation, by_chance[i]))
        for _ in range(_DRAWS):
            point = self._space.mutate(known[best[int(rng.integers(len(best)))]].point, rng)
            if not history.tried(point):
                return self._space.candidate(point)
        return None

    def _new(self, history: History, points: Iterable[Point]) -> list[Candidate]:
        candidates = [self._space.candidate(point) for point in points]
        return [c for c in candidates if not history.tried(self._space.point(c))]

    def _point(self, history: History, rng: np.random.Generator) -> Point:
        try:
            return self._sampler.propose(self._space, self._objectives, history, rng)
        except SlimsearchError:
            raise
        except Exception as error:  # a user's sampler may raise anything
            name = type(self._sampler).__name__
            raise SlimsearchError(f"sampler {name} failed: {describe_error(error)}") from error


def _ruled_out(history: History) -> float:
    """Share of the last trials that broke a limit before they were trained."""
    ended = (o for o in reversed(history.observations) if o.losses is not None or o.violation > 0)
    return sum(o.losses is None for o in islice(ended, _RECENT)) / _RECENT


def dominated_on_cost(
    ranking: Ranking, candidate: Candidate, known: Mapping[str, float], trials: Iterable[Trial]
) -> str | None:
    """Why a candidate with `known` costs is already dominated on cost, or None if training may be worthwhile.

    If recipes are searched too, an architecture occurs with several recipes. Its leading metric, such as accuracy, is
    assumed to be at most the best of this architecture so far, with the same training and any recipe, plus two standard
    errors. Costs are exact except latency, which may have been measured 3% too high.
    """
    unknown, leading = [o for o in ranking.objectives if o.metric not in known], ranking.leading
    if ranking.weighted or unknown != [leading]:
        return None
    trials = [t for t in trials if t.state == COMPLETE]
    alike = [t for t in trials if _trained_alike(t.candidate, candidate)]
    values = [value for t in alike for value in _values(t, leading.metric)]
    if not values:
        return None
    sign = 1 if leading.direction == "maximize" else -1
    best = max(values, key=lambda value: sign * value)
    hope = best + sign * STANDARD_ERRORS * max(standard_error(t.metrics, leading.metric, best) for t in alike)
    # A share is at most 1; a metric of the user's may be more.
    hoped = {**known, leading.metric: min(max(1.0, best), hope) if sign > 0 else hope}
    if "latency_ms" in hoped:
        hoped["latency_ms"] *= 1 - _LATENCY_TOLERANCE
    losses = [objective.loss(hoped) for objective in ranking.objectives]
    for trial in ranking.feasible(trials):
        theirs = [objective.loss(trial.metrics) for objective in ranking.objectives]
        if all(a <= b for a, b in zip(theirs, losses, strict=True)) and theirs != losses:
            return (
                f"dominated by trial {trial.number} even at {metrics_text({leading.metric: hoped[leading.metric]})}: "
                f"its architecture has had {metrics_text({leading.metric: best})}"
            )
    return None


def _trained_alike(one: Candidate, other: Candidate) -> bool:
    return one.architecture == other.architecture and one.training == other.training


def _values(trial: Trial, metric: str) -> Iterable[float]:
    """A metric of the trial's file, and after each epoch."""
    yield trial.metrics[metric]
    yield from (point[metric] for point in trial.curve if metric in point)


def standard_error(metrics: Mapping[str, float], metric: str, value: float) -> float:
    """The standard error of a metric, from its interval or else of a proportion."""
    low, high, images = metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high"), metrics.get("val_images", 0.0)
    if low is not None and high is not None:
        return (high - low) / (2 * _Z95)
    return math.sqrt(max(0.0, value * (1 - value)) / images) if images else 0.0
