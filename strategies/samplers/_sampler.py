"""What a sampler sees of the past, and what it must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evaluators import Objective
from search_spaces import Point, Space


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


@dataclass(frozen=True)
class History:
    """All earlier trials, in the order of their numbers."""

    observations: Sequence[Observation] = field(default_factory=tuple)

    @property
    def finished(self) -> list[Observation]:
        """Those with losses."""
        return [o for o in self.observations if o.losses is not None]


class Sampler(Protocol):
    """Proposes the next point.

    A proposal is a function of its arguments: the same in this process and in another. An index of the history may
    be kept for speed if it can be dropped and built again.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        """A point of `space`; it may have been tried before, which the search then sees to."""
