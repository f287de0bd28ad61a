"""What is better among observations with limits and several losses, and where near a point something is untried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from search_spaces import Candidate, Point, Space
from slimsearch_errors import SlimsearchError
from strategies.samplers._sampler import History, Observation

# So many points around a tried one are looked at for an untried one.
_REACH = 2000


def covers(one: Observation, other: Observation) -> bool:
    """Whether `one` is at least as good as `other` in everything: first in violation, then in every loss.

    Source: constrained dominance, Deb et al. 2002. Both have losses.
    """
    assert one.losses is not None
    assert other.losses is not None
    if one.violation != other.violation:
        return one.violation < other.violation
    return all(a <= b for a, b in zip(one.losses, other.losses, strict=True))


def standings(observations: Sequence[Observation]) -> list[tuple[float, float, float]]:
    """A key for each of `observations`, all with losses; the better of two has the lesser key.

    Violation first; then the one loss, or with several the Pareto rank and, of equal rank, the larger crowding
    distance (NSGA-II, Deb et al. 2002).
    """
    keys = [(o.violation, 0.0, 0.0) for o in observations]
    feasible = [i for i, o in enumerate(observations) if o.violation <= 0]
    losses = np.array([observations[i].losses for i in feasible], dtype=float)  # (feasible, objectives)
    if not feasible:
        return keys
    if losses.shape[1] == 1:
        ranks, distances = losses[:, 0], np.zeros(len(losses))
    else:
        import moocore

        ranks, distances = moocore.pareto_rank(losses), np.zeros(len(losses))
        for rank in np.unique(ranks):
            distances[ranks == rank] = crowding(losses[ranks == rank])
    for i, rank, distance in zip(feasible, ranks, distances, strict=True):
        keys[i] = (0.0, float(rank), -float(distance))
    return keys


def crowding(losses: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, objectives) losses of one front -> (n,) crowding distances, infinite at the ends of each axis."""
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        if not width > 0:
            continue
        distances[order[[0, -1]]] = np.inf
        distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distances


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
            for neighbour in shuffled_neighbours(space, centre, rng):
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


def shuffled_neighbours(space: Space, point: Point, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The points that differ from the canonical `point` in one active choice, in random order, each made when asked.

    What a change activates is drawn. The first one is what `Space.mutate` would give, without listing all of them.
    """
    moves = [
        (choice, value)
        for choice in space.choices
        if choice.label in point
        for position, value in enumerate(choice.values)
        if position != choice.index(point[choice.label])
    ]
    for index in rng.permutation(len(moves)):
        changed, value = moves[index]
        filled = {
            c.label: point[c.label] if c.label in point else c.values[int(rng.integers(len(c.values)))]
            for c in space.choices
        }
        filled[changed.label] = value
        try:
            yield space.canonical(filled)
        except SlimsearchError:  # the space's own constraints forbid it
            continue


def mutated(space: Space, point: Point, rng: np.random.Generator) -> dict[str, Any]:
    """A point that differs from the canonical `point` in one active choice; `point` where there is none."""
    return next(shuffled_neighbours(space, point, rng), dict(point))
