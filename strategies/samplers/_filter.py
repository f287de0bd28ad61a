"""Several proposals of a sampler, scored before any is tried."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers._sampler import History, Sampler, keeps_limits

# A sampler that proposes the same again is asked so many times for each proposal that is wanted.
_TRIES = 3

_log = logging.getLogger(__name__)


class Filtered:
    """The best-scored of several proposals of another sampler.

    Source: the warm-up and move proposal of Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", with any
    sampler in the place of evolution.

    Args:
        sampler: proposes; its laws hold for this one too if `score` depends on the point alone.
        score: of a canonical point, more is better. One that raises or is not finite is the worst.
        draws: how many different, untried proposals are scored; fewer where the sampler has no more.

    Raises:
        SlimsearchError: `draws` is less than 1.
    """

    def __init__(self, sampler: Sampler, score: Callable[[Point], float], draws: int = 4) -> None:
        if draws < 1:
            raise SlimsearchError(f"{draws} draws: a filter needs at least 1")
        self._sampler, self._score, self._draws = sampler, score, draws

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        fresh: dict[Candidate, Point] = {}
        point: Point = {}
        for child in rng.spawn(_TRIES * self._draws):
            point = space.canonical(self._sampler.propose(space, objectives, history, child))
            if not history.tried(point):
                fresh.setdefault(Candidate(point), point)
            if len(fresh) == self._draws:
                break
        if len(fresh) < 2:
            return next(iter(fresh.values()), point)  # nothing to choose from
        return max(fresh.values(), key=self._worth)  # the first of equals

    def keeps_limits(self, space: Space, history: History) -> bool:
        """Whether the other sampler does."""
        return keeps_limits(self._sampler, space, history)

    def _worth(self, point: Point) -> float:
        try:
            value = float(self._score(point))
        except Exception as error:  # anybody's score
            _log.warning("no score for %s: %s: %s", dict(point), type(error).__name__, error)
            return -math.inf
        return value if math.isfinite(value) else -math.inf
