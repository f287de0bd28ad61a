"""The sampler interface: a proposal from the history of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Candidate, Point, Space

# Maximum number of neighbors that are searched for an untried point.
_MAX_VISITED = 2000


@dataclass(frozen=True)
class Observation:
    """An earlier trial of the search.

    Attributes:
        point: canonical.
        losses: one per objective, less is better; None while it runs, or if it failed or was ruled out.
        violation: total violation of hard limits, each relative to its limit; 0 for none.
        running: whether it is under evaluation.
        curve: first loss by epoch, counted across the trainings of this trial; empty if the first objective is measured
            on the exported file only.
        epochs: length of the training of a network from initial weights.
    """

    point: Mapping[str, Any]
    losses: tuple[float, ...] | None = None
    violation: float = 0.0
    running: bool = False
    curve: Mapping[int, float] = field(default_factory=dict)
    epochs: int = 1


class History:
    """All earlier trials, in the order of their numbers.

    The search adds and changes observations; samplers only read them. A sampler may cache in `memo` values that follow
    from the observations alone.

    Args:
        observations: by number.
    """

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._observations = list(observations)
        self._keys = {Candidate(o.point).key for o in self._observations}
        self._finished = sum(o.losses is not None for o in self._observations)
        self.memo: dict[str, Any] = {}

    @property
    def observations(self) -> Sequence[Observation]:
        """All observations, by number."""
        return self._observations

    @property
    def finished(self) -> list[Observation]:
        """Observations with losses, by number."""
        return [o for o in self._observations if o.losses is not None]

    @property
    def finished_count(self) -> int:
        """Number of observations with losses."""
        return self._finished

    def tried(self, point: Point) -> bool:
        """Whether a trial has this canonical point, in any state."""
        return Candidate(point).key in self._keys

    def add(self, observation: Observation) -> None:
        """Add the observation of a trial that has begun."""
        self._observations.append(observation)
        self._keys.add(Candidate(observation.point).key)
        self._finished += observation.losses is not None

    def change(self, position: int, observation: Observation) -> None:
        """Replace the observation at `position` by one of the same point, when the trial has ended."""
        self._finished += (observation.losses is not None) - (self._observations[position].losses is not None)
        self._observations[position] = observation


class Sampler(Protocol):
    """Proposes the next point.

    A proposal is a function of the arguments alone, the same in every process. A sampler may cache an index of the
    history if it can be rebuilt. The optional method ``keeps_limits(space, history)`` returns whether the sampler has
    learned which points break limits; until then the search sometimes proposes a point near a feasible one instead.
    With the optional attribute ``scores_derived = False``, the search does not score by itself the recipes that need no
    training (`Space.derived_points`).
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        """A canonical point of `space`, untried if the sampler finds one; the search handles repeats."""


def keeps_limits(sampler: Sampler, space: Space, history: History) -> bool:
    """Whether `sampler` has learned from `history` which points break limits."""
    method = getattr(sampler, "keeps_limits", None)
    return method is not None and bool(method(space, history))


def new_point(
    space: Space, history: History, draw: Callable[[], Point], rng: np.random.Generator, draws: int = 20
) -> dict[str, Any]:
    """The first of up to `draws` draws that is in the space and untried, canonical; else `nearest_untried`."""
    point: dict[str, Any] | None = None
    for _ in range(draws):
        try:
            point = space.canonical(draw())
        except SlimsearchError:  # it breaks a constraint of the space
            continue
        if not history.tried(point):
            return point
    return nearest_untried(space, history, space.sample(rng) if point is None else point, rng)


def nearest_untried(space: Space, history: History, point: Point, rng: np.random.Generator) -> dict[str, Any]:
    """The untried point with the fewest changes from the canonical `point`, or `point` if the search finds none."""
    visited = {Candidate(point).key}
    layer = [dict(point)]
    while layer:
        following = []
        for center in layer:
            for neighbour in space.shuffled_neighbours(center, rng):
                if not history.tried(neighbour):
                    return neighbour
                key = Candidate(neighbour).key
                if key not in visited:
                    visited.add(key)
                    following.append(neighbour)
            if len(visited) > _MAX_VISITED:
                return dict(point)
        layer = following
    return dict(point)
