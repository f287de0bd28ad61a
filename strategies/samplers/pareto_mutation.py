"""Mutation of the Pareto front."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._dominance import covers
from slimsearch.strategies.samplers._sampler import History, Observation, new_point


class ParetoMutation:
    """A member of the Pareto front with one choice changed, or two if all single changes were tried.

    With one objective, the parents are the three best trials; before any trial is feasible, those with the least
    violation. The first ten proposals and a tenth of the others are random.

    Source: the (mu + 1) evolution with an archive of Knowles and Corne 2000 (PAES), without its grid and without
    repeats.
    """

    STARTUP = 10
    EXPLORATION = 0.1
    FEW = 3

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        best = history.memo.get("pareto_mutation")
        if best is None or best.space is not space:
            best = history.memo["pareto_mutation"] = _Best(space, self.FEW)
        best.update(history.observations)
        parents = [history.observations[i].point for i in best.positions()]
        if history.finished_count < self.STARTUP or not parents or rng.random() < self.EXPLORATION:
            return new_point(space, history, lambda: space.sample(rng), rng)
        for _ in range(20):
            point = space.mutate(parents[int(rng.integers(len(parents)))], rng)
            if not history.tried(point):
                return point
        order = [best.positions()[i] for i in rng.permutation(len(parents))]
        for position in order:
            untried = best.untried_around(position, history)
            if untried:
                return untried[int(rng.integers(len(untried)))]

        def twice_mutated() -> dict[str, Any]:
            once = space.mutate(parents[int(rng.integers(len(parents)))], rng)
            return space.mutate(once, rng)

        return new_point(space, history, twice_mutated, rng)


class _Best:
    """Positions of the parents, updated as trials end."""

    def __init__(self, space: Space, few: int) -> None:
        self.space = space
        self._few = few
        self._known: list[Observation] = []
        self._front: list[int] = []  # with several objectives: the nondominated, feasible trials
        self._top: list[tuple[float, tuple[float, ...], int]] = []  # violation, losses and position of the best trials
        self._exhausted: set[int] = set()

    def update(self, observations: Sequence[Observation]) -> None:
        """Update from changed and new observations."""
        changed = [i for i, (old, new) in enumerate(zip(self._known, observations, strict=False)) if old is not new]
        best = {*self._front, *(position for _, _, position in self._top)}
        if not best.isdisjoint(changed):
            # A parent has changed, so trials that it dominated may become parents again.
            self._known, self._front, self._top, changed = [], [], [], []
        for position in changed:
            self._known[position] = observations[position]
            self._add(position)
        for position in range(len(self._known), len(observations)):
            self._known.append(observations[position])
            self._add(position)

    def positions(self) -> list[int]:
        """Positions of the parents, ascending."""
        return sorted(self._front or [position for _, _, position in self._top])

    def untried_around(self, position: int, history: History) -> list[dict[str, Any]]:
        """Untried points with one choice changed, where newly active choices take their first value."""
        if position in self._exhausted:
            return []
        untried = [p for p in self.space.neighbours(self._known[position].point) if not history.tried(p)]
        if not untried:
            self._exhausted.add(position)  # tried points stay tried, and a trial keeps its point
        return untried

    def _add(self, position: int) -> None:
        new = self._known[position]
        if new.losses is None:
            return
        several = len(new.losses) > 1
        insort(self._top, (new.violation, () if several else new.losses, position))
        del self._top[self._few :]
        if several and new.violation <= 0 and not any(self._covers(i, new) for i in self._front):
            self._front = [i for i in self._front if not covers(new, self._known[i])]
            self._front.append(position)

    def _covers(self, position: int, new: Observation) -> bool:
        return covers(self._known[position], new)
