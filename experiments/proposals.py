"""The next candidate: what the sampler proposes, or something near it that is new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from evaluators import Objective
from search_spaces import Candidate, Point, Space
from slimsearch_errors import SlimsearchError
from strategies.samplers import History, Sampler

# A sampler that proposes only what was tried gets so many further draws before others look for something new.
_DRAWS = 20
# Spaces up to this size are listed when everything near has been tried.
_LISTABLE = 200_000


class Proposals:
    """No candidate twice, whatever the sampler proposes.

    Args:
        space, sampler, objectives: what is searched, and how.
        seed: of the run; each trial's random numbers follow from it and the trial's number.
    """

    def __init__(self, space: Space, sampler: Sampler, objectives: Sequence[Objective], seed: int) -> None:
        self._space, self._sampler, self._objectives, self._seed = space, sampler, objectives, seed

    def next(self, history: History, number: int) -> Candidate | None:
        """A candidate that is not in `history`, for trial `number`; None where the space is used up."""
        rng = np.random.default_rng([self._seed, number])
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
            raise SlimsearchError(f"sampler {name} failed: {type(error).__name__}: {error}") from error
