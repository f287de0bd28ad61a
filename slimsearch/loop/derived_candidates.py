"""Candidates that need no training: recipes without training for networks that finished trials have trained."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

from slimsearch.evaluators import Objective
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.search_spaces import Candidate, JointSpace, Point, Space
from slimsearch.strategies.samplers import History, Sampler


class DerivedCandidates:
    """Candidates that only need to be exported and scored, in the order of the trials that trained their networks.

    The untrained stages of a recipe, such as its number format, are left out for an architecture once their file was
    dominated by a file of the same network.

    Args:
        space: of the candidates; only a `JointSpace` has such candidates.
        sampler: may propose them itself, see `Sampler`; there are none here then.
        objectives: of the search.
    """

    def __init__(self, space: Space, sampler: Sampler, objectives: Sequence[Objective]) -> None:
        joint = space if isinstance(space, JointSpace) and space.steps is not None else None
        self._space = joint if getattr(sampler, "scores_derived", True) else None
        self._objectives = objectives
        self._waiting: deque[tuple[dict[str, object], int]] = deque()
        self._seen: set[str] = set()
        self._files: dict[str, dict[str, list[float]]] = {}  # network: untrained stages: losses
        self._dominated: set[tuple[str, str]] = set()  # architecture and untrained stages

    def add(self, trial: Trial) -> None:
        """Take a finished trial into account."""
        if self._space is None or trial.state != COMPLETE:
            return
        parent = trial.number if trial.parent is None else trial.parent
        for point in self._space.derived_points(trial.point):
            key = Candidate(point).key
            if key not in self._seen:
                self._seen.add(key)
                self._waiting.append((point, parent))
        self._compare(self._space, trial)

    def next(self, history: History) -> tuple[Candidate, int] | None:
        """An untried candidate and the trial that trained its network, or None."""
        while self._waiting:
            point, parent = self._waiting.popleft()
            assert self._space is not None
            if not history.tried(point) and self._form(self._space, point) not in self._dominated:
                return self._space.candidate(point), parent
        return None

    def _compare(self, space: JointSpace, trial: Trial) -> None:
        """Compare a file with the others of the same network."""
        if any(objective.metric not in trial.metrics for objective in self._objectives):
            return
        architecture, stages = self._form(space, trial.point)
        lineage = space.lineage(trial.point)
        files = self._files.setdefault(lineage[-1].name if lineage else "", {})
        losses = files[stages] = [objective.loss(trial.metrics) for objective in self._objectives]
        for other, others in files.items():
            if _dominates(losses, others):
                self._dominated.add((architecture, other))
            elif _dominates(others, losses):
                self._dominated.add((architecture, stages))

    @staticmethod
    def _form(space: JointSpace, point: Point) -> tuple[str, str]:
        architecture = Candidate(space.architecture(point)).key
        return architecture, json.dumps(space.untrained_stages(point))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a file is better in every objective but the first, and no worse in that."""
    return len(one) > 1 and one[0] <= other[0] and all(a < b for a, b in zip(one[1:], other[1:], strict=True))
