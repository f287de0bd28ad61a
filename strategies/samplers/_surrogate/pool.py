"""The candidate pool of a model-based sampler."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from slimsearch.search_spaces import Space
from slimsearch.strategies.samplers._sampler import History
from slimsearch.strategies.samplers._surrogate.encoding import Encoder, Positions

# A space of up to _LISTED points is listed; from a larger one _DRAWN points are drawn, again every _RENEWED trials.
_LISTED, _DRAWN, _RENEWED = 20_000, 500, 50
# Number of latest finished trials whose relatives are candidates.
_RELATED = 40
# Number of points of the whole space that are candidates, if it has more.
_SAMPLED = 1000
# Number of neighbors of a leader that are candidates in a larger space.
_NEAR = 24


class Pool:
    """Untried points: a sample of the whole space, neighbors of the best trials, and points that are quick to try.

    Args:
        space: listed if it is small, else sampled.
        encoder: stores the points.
    """

    def __init__(self, space: Space, encoder: Encoder) -> None:
        self._space, self._encoder = space, encoder
        self._listed = self._encoded(space.grid()) if space.size <= _LISTED else None
        self._drawn: tuple[int, Positions] = (-1, np.zeros(0, dtype=np.int64))
        self._near: dict[int, Positions] = {}
        self._related: dict[int, Positions] = {}
        self._tried: list[int] = []

    def tried(self, history: History) -> Positions:
        """Positions of all observations, by number."""
        observations = history.observations
        self._tried.extend(self._encoder.position(o.point) for o in observations[len(self._tried) :])
        return np.array(self._tried, dtype=np.int64)

    def draw(self, history: History, leaders: Iterable[int], rng: np.random.Generator) -> Positions:
        """Sorted positions of untried candidates; none if the whole space was tried.

        Args:
            history: earlier trials.
            leaders: positions whose neighbors are candidates.
            rng: for the sample of the whole space.
        """
        everything = self._everything(len(history.observations))
        if len(everything) > _SAMPLED:
            everything = rng.choice(everything, _SAMPLED, replace=False)
        leaders, tried = list(leaders), self.tried(history)
        ended = [int(tried[i]) for i, o in enumerate(history.observations) if o.losses is not None]
        related = [self._relatives(position) for position in {*leaders, *ended[-_RELATED:]}]
        chosen = np.unique(np.concatenate([everything, *(self._neighbours(leader) for leader in leaders), *related]))
        return np.setdiff1d(chosen, tried, assume_unique=False)

    def _everything(self, trials: int) -> Positions:
        if self._listed is not None:
            return self._listed
        block = trials // _RENEWED
        if self._drawn[0] != block:
            rng = np.random.default_rng(block)
            self._drawn = block, self._encoded(self._space.sample(rng) for _ in range(_DRAWN))
        return self._drawn[1]

    def _neighbours(self, position: int) -> Positions:
        if position not in self._near:
            point = self._encoder.point(position)
            if self._listed is not None:
                self._near[position] = self._encoded(self._space.neighbours(point))
            else:
                rng = np.random.default_rng(_NEAR)
                self._near[position] = self._encoded(self._space.mutate(point, rng) for _ in range(_NEAR))
        return self._near[position]

    def _relatives(self, position: int) -> Positions:
        if position not in self._related:
            rng = np.random.default_rng(_RELATED)
            self._related[position] = self._encoded(self._space.related_points(self._encoder.point(position), rng))
        return self._related[position]

    def _encoded(self, points: Iterable[dict[str, object]]) -> Positions:
        return np.array([self._encoder.position(point) for point in points], dtype=np.int64)
