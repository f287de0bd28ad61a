"""The contracts themselves: plug-ins that break a law fail, and pytest is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, ModelSpace, Point, Space
from slimsearch.strategies.samplers import History
from slimsearch.testing import SamplerContract, SpaceContract, StrategyContract
from tests.conftest import environment


class Stateful:
    """A sampler whose proposals depend on the number of earlier calls."""

    def __init__(self) -> None:
        self.calls = 0

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> dict[str, Any]:
        self.calls += 1
        return next(iter(space.neighbours(space.sample(np.random.default_rng(self.calls)))))


class NotCanonical(ChoiceSpace):
    """A space that keeps unknown labels."""

    def canonical(self, point: Point) -> dict[str, Any]:
        return dict(point)


class Forgetful:
    """A strategy that tells no results."""

    def run(self, search: Any, evaluator: Any) -> None:
        while search.ask() is not None:
            pass


def test_a_sampler_with_state_fails() -> None:
    networks = ModelSpace.load("mnist_cnn", (1, 28, 28), 10)
    with pytest.raises(AssertionError):
        SamplerContract().test_proposals_are_inside_and_repeat(Stateful, "one", 5, networks)


def test_a_space_that_accepts_anything_fails() -> None:
    space = NotCanonical({"a": [1, 2]})
    with pytest.raises(AssertionError):
        SpaceContract().test_points_outside_are_refused(space, np.random.default_rng(0))


def test_a_strategy_that_tells_nothing_fails(tmp_path: Any) -> None:
    with pytest.raises(AssertionError):
        StrategyContract().test_outcomes_and_errors_are_told_once(lambda **settings: Forgetful(), tmp_path)


def test_without_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import slimsearch.testing"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].endswith("needs pytest: pip install 'slimsearch[test]'")
