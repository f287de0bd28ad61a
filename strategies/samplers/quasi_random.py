"""Points of a scrambled Sobol sequence."""

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

# All proposals are of one sequence, whatever the seed of the run.
_SCRAMBLE = 0
_BLOCK = 256


class QuasiRandom:
    """The first point of a scrambled Sobol sequence that was not tried.

    The unit interval of each choice is cut in as many equal pieces as it has values. Where so few points are left that
    the sequence does not meet one in good time, an untried neighbour of its last point.

    Source: Sobol 1967, scrambled after Matousek 1998, as in SciPy. Every run of a space walks the same sequence: a
    random generator that is new for each proposal cannot scramble one. What the sequence meets twice is left out, so
    that the balance of its blocks is not exact.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        walk = history.memo.get("quasi_random")
        if walk is None or walk.space is not space:
            walk = history.memo["quasi_random"] = _Walk(space)
        # Counted from the start of the sequence: a walk that was dropped and begun again ends at the same place.
        end = 1000 + 20 * len(history.observations)
        while walk.place < end:
            point = walk.point()
            if point is not None and not history.tried(point):
                return point
            walk.place += 1  # what was tried stays so
        return nearest_untried(space, history, space.sample(rng), rng)


@dataclass
class _Walk:
    """The sequence over `space`; everything before `place` was tried."""

    space: Space
    place: int = 0
    _engine: qmc.Sobol | None = None
    _rows: list[Any] = field(default_factory=list)

    def point(self) -> dict[str, Any] | None:
        """The canonical point at the place; None where the space's own constraints forbid it."""
        choices = self.space.choices
        if self._engine is None:
            from scipy.stats import qmc

            self._engine = qmc.Sobol(len(choices), scramble=True, seed=_SCRAMBLE)
        while self.place >= len(self._rows):
            self._rows.extend(self._engine.random(_BLOCK))
        positions = [min(int(u * len(c.values)), len(c.values) - 1) for u, c in zip(self._row, choices, strict=True)]
        try:
            return self.space.canonical({c.label: c.values[i] for c, i in zip(choices, positions, strict=True)})
        except SlimsearchError:
            return None

    @property
    def _row(self) -> Any:
        return self._rows[self.place]
