"""Known losses of intermediate networks (ancestors of other networks), and the remaining training of a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimsearch.strategies.samplers._sampler import Observation
from slimsearch.strategies.samplers._surrogate.encoding import Encoder, Positions

SCORING = 0.25
"""Cost of exporting and measuring a network, as a share of a short training."""
_NEW = 0.25
"""Least share of the work that goes to networks that no trial has trained."""

_PASSED = 100
"""Number of latest intermediate networks to learn from."""


class TrainingPaths:
    """The networks that trials have trained as ancestors of their own; see `Space.lineage`.

    Args:
        encoder: of the points.
        observations: of all trials.
        positions: of their points in the encoder.
    """

    def __init__(self, encoder: Encoder, observations: Sequence[Observation], positions: Positions) -> None:
        self._encoder = encoder
        self._losses: dict[str, float | None] = {}
        self._points: dict[str, int] = {}
        self._on_new = self._in_all = 0.0
        self._tried = set(positions.tolist())
        self._finished = {int(p) for p, o in zip(positions, observations, strict=True) if o.losses is not None}
        for position, observation in zip(positions, observations, strict=True):
            if observation.losses is not None or observation.running:
                self._pass(int(position), observation)

    def left(self, candidates: Positions) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """(M,) remaining training of each candidate, in trainings of one network; 0 if all was done."""
        return np.array([self._left(int(position)) for position in candidates])

    def last(self, position: int) -> tuple[int, float] | None:
        """The last trained ancestor of a point, and its first loss; None if unknown."""
        lineage = self._encoder.lineage(position)
        if not lineage or lineage[-1].name not in self._points:
            return None
        name = lineage[-1].name
        loss = self._losses[name]
        return None if loss is None else (self._points[name], loss)

    def first(self, position: int) -> int:
        """The untrained first ancestor of a point, if it is an untried point; else the point."""
        begin = self._encoder.lineage(position)[0]
        if begin.name in self._losses or begin.point is None:
            return position
        found = self._encoder.position(begin.point)
        return position if found in self._tried else found

    def due(self, candidates: Positions) -> Positions:
        """The candidates whose first ancestor is untrained, if such networks have had too little work; else all."""
        if self._on_new >= _NEW * self._in_all:
            return candidates
        found = candidates[[self._encoder.lineage(int(p))[0].name not in self._losses for p in candidates]]
        return found if len(found) else candidates

    @property
    def passed(self) -> list[tuple[int, float]]:
        """The latest trained ancestors that no trial has finished, with their first losses."""
        found = [
            (position, loss)
            for name, position in self._points.items()
            if position not in self._finished and (loss := self._losses[name]) is not None
        ]
        return found[-_PASSED:]

    def _pass(self, position: int, observation: Observation) -> None:
        epoch = max(observation.curve, default=0)
        lineage = self._encoder.lineage(position)
        self._in_all += SCORING + self._left(position)
        if lineage[0].name not in self._losses:
            self._on_new += SCORING + lineage[0].trainings
        for ancestor in reversed(lineage):
            # Epochs are counted across the trainings of a trial; epochs before its first belong to other trials.
            loss = observation.curve.get(epoch)
            if self._losses.get(ancestor.name) is None:
                self._losses[ancestor.name] = loss
            if ancestor.point is not None and ancestor.name not in self._points:
                self._points[ancestor.name] = self._encoder.position(ancestor.point)
            epoch -= round(ancestor.trainings * observation.epochs)

    def _left(self, position: int) -> float:
        return sum(one.trainings for one in self._encoder.lineage(position) if one.name not in self._losses)
