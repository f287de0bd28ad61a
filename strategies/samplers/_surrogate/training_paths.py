"""Networks trained on the way to other networks: their known losses, and the training left for a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimsearch.strategies.samplers._sampler import Observation
from slimsearch.strategies.samplers._surrogate.encoding import Encoder, Positions

SCORING = 0.25
"""Cost of exporting and measuring a network, as a share of a short training."""
_NEW = 0.5
"""Least share of the work that is spent on networks no trial has trained."""

_PASSED = 100
"""Number of intermediate networks that are learned from, the latest ones."""


class TrainingPaths:
    """The networks that all trials so far have trained on the way to theirs; see `Space.lineage`.

    Args:
        encoder: of the points.
        observations: of all trials.
        positions: of their points, in the encoder.
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
        """(M,) training left for each candidate, in trainings of one network; 0 where all was done."""
        return np.array([self._left(int(position)) for position in candidates])

    def last(self, position: int) -> tuple[int, float] | None:
        """The last network that is trained on the way to a point, and its first loss; None: not known."""
        way = self._encoder.lineage(position)
        if not way or way[-1].name not in self._points:
            return None
        name = way[-1].name
        loss = self._losses[name]
        return None if loss is None else (self._points[name], loss)

    def first(self, position: int) -> int:
        """The first untrained network on the way to a point, where it is a point itself; else the point."""
        begin = self._encoder.lineage(position)[0]
        if begin.name in self._losses or begin.point is None:
            return position
        found = self._encoder.position(begin.point)
        return position if found in self._tried else found

    def due(self, candidates: Positions) -> Positions:
        """The candidates that begin with an untrained network, if these have had too little work; else all."""
        if self._on_new >= _NEW * self._in_all:
            return candidates
        found = candidates[[self._encoder.lineage(int(p))[0].name not in self._losses for p in candidates]]
        return found if len(found) else candidates

    @property
    def passed(self) -> list[tuple[int, float]]:
        """The latest points trained on the way to others and not finished by a trial, with their first losses."""
        found = [
            (position, loss)
            for name, position in self._points.items()
            if position not in self._finished and (loss := self._losses[name]) is not None
        ]
        return found[-_PASSED:]

    def _pass(self, position: int, observation: Observation) -> None:
        epoch = max(observation.curve, default=0)
        way = self._encoder.lineage(position)
        self._in_all += SCORING + self._left(position)
        if way[0].name not in self._losses:
            self._on_new += SCORING + way[0].trainings
        for stop in reversed(way):
            # Epochs are counted across the trainings of a trial; those before the first belong to other trials.
            loss = observation.curve.get(epoch)
            if self._losses.get(stop.name) is None:
                self._losses[stop.name] = loss
            if stop.point is not None and stop.name not in self._points:
                self._points[stop.name] = self._encoder.position(stop.point)
            epoch -= round(stop.trainings * observation.epochs)

    def _left(self, position: int) -> float:
        return sum(stop.trainings for stop in self._encoder.lineage(position) if stop.name not in self._losses)
