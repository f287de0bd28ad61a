"""The next candidate: what the sampler proposes, or something near it that is new, or near what keeps the limits."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers import History, Sampler, keeps_limits

# A sampler that proposes only what was tried gets so many further draws before others look for something new.
_DRAWS = 20
# Spaces up to this size are listed when everything near has been tried.
_LISTABLE = 200_000
# Of so many trials that ended last, those that a limit has ruled out tell how hard limits are to keep; what is tried in
# place of the sampler's proposal is near one of so many that keep them best.
_RECENT, _NEAREST = 20, 10


class Proposals:
    """No candidate twice, whatever the sampler proposes, and few that break limits, however narrow these are.

    Most samplers learn from what was trained. Where most candidates are ruled out before that, there is nothing to
    learn from, so that as often as it happens a change to one of the networks that come nearest to the limits is tried.

    Args:
        space, sampler, objectives: what is searched, and how.
        seed: of the run; each trial's random numbers follow from it and the trial's number.
    """

    def __init__(self, space: Space, sampler: Sampler, objectives: Sequence[Objective], seed: int) -> None:
        self._space, self._sampler, self._objectives, self._seed = space, sampler, objectives, seed

    def next(self, history: History, number: int) -> Candidate | None:
        """A candidate that is not in `history`, for trial `number`; None where the space is used up."""
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
    """The share of the trials that ended last which broke a limit before they were trained."""
    ended = (o for o in reversed(history.observations) if o.losses is not None or o.violation > 0)
    return sum(o.losses is None for o in islice(ended, _RECENT)) / _RECENT
