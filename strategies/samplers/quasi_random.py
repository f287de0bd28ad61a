"""Quasi-random search by a scrambled Sobol sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._sampler import History, nearest_untried

if TYPE_CHECKING:
    from scipy.stats import qmc

# All runs use one sequence, for any seed.
_SCRAMBLE = 0
_BLOCK = 256


class QuasiRandom:
    """The first untried point of a scrambled Sobol sequence.

    The unit interval of each choice is cut in as many equal pieces as it has values. Where the sequence does not reach
    an untried point in good time, it is one near a random point.

    Source: Sobol 1967, scrambled after Matousek 1998, as in SciPy. Every run of a space walks the same sequence: a
    random generator that is new for each proposal cannot scramble one. Repeats are left out, so that the balance of
    its blocks is not exact.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        walk = history.memo.get("quasi_random")
        if walk is None or walk.space is not space:
            walk = history.memo["quasi_random"] = _Walk(space)
        # Counted from the start of the sequence: a walk that was dropped and begun again ends at the same place.
        end = 1000 + 20 * len(history.observations)
        while walk.position < end:
            point = walk.point()
            if point is not None and not history.tried(point):
                return point
            walk.position += 1  # tried points stay tried
        return nearest_untried(space, history, space.sample(rng), rng)


@dataclass
class _Walk:
    """The sequence over `space`; all points before `position` were tried."""

    space: Space
    position: int = 0
    _engine: qmc.Sobol | None = None
    _rows: list[Any] = field(default_factory=list)

    def point(self) -> dict[str, Any] | None:
        """The canonical point at `position`; None where a constraint of the space forbids it."""
        choices = self.space.choices
        if self._engine is None:
            from scipy.stats import qmc

            self._engine = qmc.Sobol(len(choices), scramble=True, seed=_SCRAMBLE)
        while self.position >= len(self._rows):
            self._rows.extend(self._engine.random(_BLOCK))
        positions = [min(int(u * len(c.values)), len(c.values) - 1) for u, c in zip(self._row, choices, strict=True)]
        try:
            return self.space.canonical({c.label: c.values[i] for c, i in zip(choices, positions, strict=True)})
        except SlimsearchError:
            return None

    @property
    def _row(self) -> Any:
        return self._rows[self.position]
