"""Candidates that need no training: recipes without training for networks that finished trials have trained."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

from slimsearch.evaluators import Objective
from slimsearch.loop.proposals import STANDARD_ERRORS, standard_error
from slimsearch.record.trial import COMPLETE, Trial
from slimsearch.search_spaces import Candidate, JointSpace, Point, Space
from slimsearch.strategies.samplers import History, Sampler

# Untrained stages that were dominated on so many architectures, and on all so far, are left out.
_ARCHITECTURES = 3


class DerivedCandidates:
    """Candidates that only need to be exported and scored, in the order of the trials that trained their networks.

    The untrained stages of a recipe, such as its number format, are left out for an architecture once their file was
    dominated by a file of the same network, and for all once that has held on the first three architectures. The
    sampler may still propose them.

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
        self._files: dict[str, dict[str, tuple[list[float], float]]] = {}  # network: untrained stages: losses, error
        self._dominated: set[tuple[str, str]] = set()  # architecture and untrained stages
        self._compared: dict[str, set[str]] = {}  # untrained stages: architectures with other files of the same network

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
            if not history.tried(point) and not self._left_out(*self._form(self._space, point)):
                return self._space.candidate(point), parent
        return None

    def _left_out(self, architecture: str, stages: str) -> bool:
        compared = self._compared.get(stages, set())
        always = len(compared) >= _ARCHITECTURES and all((one, stages) in self._dominated for one in compared)
        return always or (architecture, stages) in self._dominated

    def _compare(self, space: JointSpace, trial: Trial) -> None:
        """Compare a file with the others of the same network."""
        if any(objective.metric not in trial.metrics for objective in self._objectives):
            return
        architecture, stages = self._form(space, trial.point)
        lineage = space.lineage(trial.point)
        files = self._files.setdefault(lineage[-1].name if lineage else "", {})
        first = self._objectives[0].metric
        error = STANDARD_ERRORS * standard_error(trial.metrics, first, trial.metrics[first])
        one = files[stages] = [objective.loss(trial.metrics) for objective in self._objectives], error
        if len(files) > 1:
            for form in files:
                self._compared.setdefault(form, set()).add(architecture)
        for form, other in files.items():
            if _dominates(one, other):
                self._dominated.add((architecture, form))
            elif _dominates(other, one):
                self._dominated.add((architecture, stages))

    @staticmethod
    def _form(space: JointSpace, point: Point) -> tuple[str, str]:
        architecture = Candidate(space.architecture(point)).key
        return architecture, json.dumps(space.untrained_stages(point))


def _dominates(one: tuple[Sequence[float], float], other: tuple[Sequence[float], float]) -> bool:
    """Whether a file is better in every objective but the first, and no worse in that beyond the error of both."""
    (ours, error), (theirs, other_error) = one, other
    if len(ours) < 2 or ours[0] > theirs[0] + max(error, other_error):
        return False
    return all(a < b for a, b in zip(ours[1:], theirs[1:], strict=True))
