"""Local search with restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers._dominance import covers
from slimsearch.strategies.samplers._sampler import History, Observation, new_point


class LocalSearch:
    """Neighbors of the best point so far, in random order; at a local optimum it restarts from a random point.

    It moves to the first better neighbor (on NAS-Bench-201 that takes half the evaluations of moving to the best one).
    With several objectives it tries the neighbors of all nondominated points of the climb (Pareto local search, Paquete
    et al. 2004). The current climb follows from replaying the trials in the order of their numbers: any better point is
    a step, and the climb ends when all neighbors were tried. A choice that a change activates takes its first value.

    Source: White et al. 2020, "Local search is state of the art for neural architecture search". The first climb begins
    at the best of five random points.
    """

    STARTUP = 5

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        members = self._climb(space, history).members
        open_members = [m for m in members if m.untried]
        if history.finished_count < self.STARTUP or not open_members:
            return new_point(space, history, lambda: space.sample(rng), rng)
        untried = list(open_members[int(rng.integers(len(open_members)))].untried.values())
        return untried[int(rng.integers(len(untried)))]

    def _climb(self, space: Space, history: History) -> _Climb:
        """The current climb; the trials before the first running one are replayed once."""
        observations = history.observations
        cached = history.memo.get("local_search")
        if cached is None or cached.space is not space or not cached.is_start_of(observations):
            cached = history.memo["local_search"] = _Climb(space)
        while cached.length < len(observations) and not observations[cached.length].running:
            cached.replay(observations[cached.length])
        climb = cached
        if cached.length < len(observations):
            climb = cached.copy()
            for observation in observations[cached.length :]:
                climb.replay(observation)
        return climb


@dataclass
class _Member:
    """A nondominated point of the climb, with its untried neighbors."""

    observation: Observation
    untried: dict[str, dict[str, Any]]


class _Climb:
    """The state of the search after replaying some trials."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.members: list[_Member] = []
        self._replayed: list[Observation] = []
        self._tried: set[str] = set()

    @property
    def length(self) -> int:
        """Number of replayed trials."""
        return len(self._replayed)

    def is_start_of(self, observations: Sequence[Observation]) -> bool:
        """Whether `observations` begins with the replayed trials."""
        return len(observations) >= len(self._replayed) and all(
            old is new for old, new in zip(self._replayed, observations, strict=False)
        )

    def copy(self) -> _Climb:
        """An independent copy."""
        other = _Climb(self.space)
        other.members = [replace(m, untried=dict(m.untried)) for m in self.members]
        other._replayed, other._tried = list(self._replayed), set(self._tried)
        return other

    def replay(self, observation: Observation) -> None:
        """Replay the next trial."""
        key = Candidate(observation.point).key
        self._replayed.append(observation)
        self._tried.add(key)
        for member in self.members:
            member.untried.pop(key, None)
        if observation.losses is not None and not any(covers(m.observation, observation) for m in self.members):
            self.members = [m for m in self.members if not covers(observation, m.observation)]
            self.members.append(_Member(observation, self._untried_around(observation.point)))
        if not any(m.untried for m in self.members):
            self.members = []

    def _untried_around(self, point: Point) -> dict[str, dict[str, Any]]:
        around = {Candidate(p).key: p for p in self.space.neighbours(point)}
        return {key: p for key, p in around.items() if key not in self._tried}
