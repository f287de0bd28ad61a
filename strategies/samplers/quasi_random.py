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

    The unit interval of each choice is divided equally among its values. If the sequence does not reach an untried
    point in time, the proposal is an untried point near a random one.

    Source: Sobol 1967, scrambled after Matousek 1998, as in SciPy. All runs of a space use the same sequence, since the
    random generator is new for each proposal. Repeats are skipped, so the balance of its blocks is not exact.
    """

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        walk = history.memo.get("quasi_random")
        if walk is None or walk.space is not space:
            walk = history.memo["quasi_random"] = _Walk(space)
        # Counted from the start of the sequence, so that a rebuilt walk ends at the same position.
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
        """The canonical point at `position`; None if it breaks a constraint of the space."""
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
