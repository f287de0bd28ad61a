"""Proposals filtered by a score of the untrained network."""

from __future__ import annotations

from slimsearch.evaluators.datasets import Dataset
from slimsearch.evaluators.scores import Score
from slimsearch.search_spaces import Candidate, ModelSpace, Point

_IMAGES = 64


class ZeroCost:
    """The score of a point's network with fresh weights, on 64 training images; each network is scored once.

    Args:
        score: of networks.
        space: builds them.
        data: whose training images are looked at.
    """

    def __init__(self, score: Score, space: ModelSpace, data: Dataset) -> None:
        self._score, self._space, self._data = score, space, data
        self._found: dict[str, float] = {}

    def __call__(self, point: Point) -> float:
        import numpy as np
        import torch

        key = Candidate(point).key
        if key not in self._found:
            train = self._data.train
            chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:_IMAGES])
            images, labels = self._data.normalise(train.images[chosen]), torch.from_numpy(train.labels[chosen])
            self._found[key] = self._score.score(self._space.build(point, 0), images, labels)
        return self._found[key]
