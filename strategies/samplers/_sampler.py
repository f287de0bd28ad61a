"""What a sampler sees of the past, and what it must give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Candidate, Point, Space

# So many points around a tried one are looked at for an untried one.
_REACH = 2000


@dataclass(frozen=True)
class Observation:
    """An earlier trial of the search.

    Attributes:
        point: canonical.
        losses: one for each objective, less is better; None while it runs, and where it failed or was ruled out.
        violation: by how much hard limits are broken, in total; 0: not at all.
        running: it is being evaluated now.
        curve: losses in the first objective by epoch, of the trainings that were made for it, counted on from one to
            the next; empty where these do not tell of it, because it is of the file and not of what was learned.
        epochs: of the training of a network from new weights.
    """

    point: Mapping[str, Any]
    losses: tuple[float, ...] | None = None
    violation: float = 0.0
    running: bool = False
    curve: Mapping[int, float] = field(default_factory=dict)
    epochs: int = 1


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
    be kept for speed if it can be dropped and built again. One that has a method `keeps_limits` too may say by it when
    it has learned which points break limits; until then something near what keeps them is tried in its place now and
    then.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        """A canonical point of `space` that was not tried, unless the sampler finds none; the search sees to those."""


def keeps_limits(sampler: Sampler, space: Space, history: History) -> bool:
    """Whether `sampler` has learned from `history` which points break limits."""
    said = getattr(sampler, "keeps_limits", None)
    return said is not None and bool(said(space, history))


def new_point(
    space: Space, history: History, draw: Callable[[], Point], rng: np.random.Generator, draws: int = 20
) -> dict[str, Any]:
    """The first of up to `draws` draws that is in the space and was not tried, canonical; else something near the last.

    Near means as few changes away as can be found; where all that is near was tried, the last draw itself.
    """
    point: dict[str, Any] | None = None
    for _ in range(draws):
        try:
            point = space.canonical(draw())
        except SlimsearchError:  # drawn without regard to the space's own constraints
            continue
        if not history.tried(point):
            return point
    return nearest_untried(space, history, space.sample(rng) if point is None else point, rng)


def nearest_untried(space: Space, history: History, point: Point, rng: np.random.Generator) -> dict[str, Any]:
    """An untried point as few changes from the canonical `point` as can be found among some thousands; else `point`."""
    seen = {Candidate(point).key}
    layer = [dict(point)]
    while layer:
        following = []
        for centre in layer:
            for neighbour in space.shuffled_neighbours(centre, rng):
                if not history.tried(neighbour):
                    return neighbour
                key = Candidate(neighbour).key
                if key not in seen:
                    seen.add(key)
                    following.append(neighbour)
            if len(seen) > _REACH:
                return dict(point)
        layer = following
    return dict(point)
