"""What a sampler sees of the past, and what it must give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evaluators import Objective
from search_spaces import Candidate, Point, Space

_DRAWS = 20


@dataclass(frozen=True)
class Observation:
    """An earlier trial of the search.

    Attributes:
        point: canonical.
        losses: one for each objective, less is better; None while it runs, and where it failed or was ruled out.
        violation: by how much hard limits are broken, in total; 0: not at all.
        running: it is being evaluated now.
    """

    point: Mapping[str, Any]
    losses: tuple[float, ...] | None = None
    violation: float = 0.0
    running: bool = False


class History:
    """All earlier trials, in the order of their numbers.

    Whoever owns it adds and changes observations; samplers only read. What a sampler wants to keep about the trials,
    so as not to work it out for each proposal, goes into `memo`; it must follow from the observations alone.

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
        """By number."""
        return self._observations

    @property
    def finished(self) -> list[Observation]:
        """Those with losses, by number."""
        return [o for o in self._observations if o.losses is not None]

    @property
    def finished_count(self) -> int:
        """How many have losses."""
        return self._finished

    def tried(self, point: Point) -> bool:
        """Whether a trial has this canonical point, whatever became of it."""
        return Candidate(point).key in self._keys

    def add(self, observation: Observation) -> None:
        """A trial has begun."""
        self._observations.append(observation)
        self._keys.add(Candidate(observation.point).key)
        self._finished += observation.losses is not None

    def change(self, position: int, observation: Observation) -> None:
        """A trial has come to its end; its point stays."""
        self._finished += (observation.losses is not None) - (self._observations[position].losses is not None)
        self._observations[position] = observation


class Sampler(Protocol):
    """Proposes the next point.

    A proposal is a function of its arguments: the same in this process and in another. An index of the history may
    be kept for speed if it can be dropped and built again.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        """A canonical point of `space` that was not tried, unless the sampler finds none; the search sees to those."""


def untried(space: Space, history: History, draw: Callable[[], Point]) -> dict[str, Any]:
    """The first of up to twenty draws that was not tried, canonical; the last one where all were."""
    point: dict[str, Any] = {}
    for _ in range(_DRAWS):
        point = space.canonical(draw())
        if not history.tried(point):
            break
    return point
