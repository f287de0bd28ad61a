"""What co-search is compared with: the same space, searched for architectures first and for their recipes then."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import JointSpace, Point, RecipeSpace, Space, Subset
from slimsearch.strategies.samplers import History, Observation, load_sampler

BUDGET = "SLIMSEARCH_BUDGET_SECONDS"
"""The environment variable with the seconds of the whole search."""


class _SearchThenCompress:
    """Networks without compression until a share of the time has passed, then recipes for those on their front.

    Everything else is as in co-search: the sampler, what is trained once and kept, how files are scored.
    """

    SHARE: float

    def __init__(self) -> None:
        self._ends = time.monotonic() + self.SHARE * float(os.environ[BUDGET])
        self._sampler = load_sampler("graph_gp")

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if not isinstance(space, JointSpace):
            raise SlimsearchError("search-then-compress needs --co-search")
        plain = _nothing_done(space.recipes)
        labels = {choice.label for choice in space.architectures.choices}
        untouched = [
            Observation(_only(o.point, labels), o.losses, o.violation, o.running)
            for o in history.observations
            if _without(o.point, labels) == plain
        ]
        scored = [o for o in untouched if o.losses is not None]
        if time.monotonic() < self._ends or not scored:
            found = self._sampler.propose(space.architectures, objectives, History(untouched), rng)
            return space.canonical({**found, **plain})
        chosen = Subset(space.architectures, [o.point for o in scored if not _dominated(o, scored)])
        narrow = JointSpace(chosen, space.recipes, space.steps)
        inside = History(o for o in history.observations if narrow.contains(o.point))
        return self._sampler.propose(narrow, objectives, inside, rng)


class Third(_SearchThenCompress):
    """A third of the time for architectures."""

    SHARE = 1 / 3


class Half(_SearchThenCompress):
    """Half of the time for architectures."""

    SHARE = 1 / 2


class TwoThirds(_SearchThenCompress):
    """Two thirds of the time for architectures."""

    SHARE = 2 / 3


def _nothing_done(recipes: RecipeSpace) -> dict[str, Any]:
    found = next((point for point in recipes.grid() if not recipes.candidate(point).recipe), None)
    if found is None:
        raise SlimsearchError("this recipe space has no network without compression")
    return found


def _dominated(one: Observation, others: Sequence[Observation]) -> bool:
    assert one.losses is not None
    return any(
        o.losses is not None
        and o.losses != one.losses
        and all(a <= b for a, b in zip(o.losses, one.losses, strict=True))
        for o in others
    )


def _only(point: Mapping[str, Any], labels: set[str]) -> dict[str, Any]:
    return {label: value for label, value in point.items() if label in labels}


def _without(point: Mapping[str, Any], labels: set[str]) -> dict[str, Any]:
    return {label: value for label, value in point.items() if label not in labels}
