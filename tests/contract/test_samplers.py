"""The laws of samplers, kept by every built-in and by one of Optuna's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from slimsearch.names import built_in_names
from slimsearch.search_spaces import ModelSpace, Space
from slimsearch.strategies.samplers import Sampler
from slimsearch.testing import LearningSamplerContract, SamplerContract, UntriedSamplerContract
from slimsearch.testing.samplers import Conditional
from tests.conftest import SPACES

NOT_LEARNING = ("random", "grid", "quasi_random")
# A proposal of Optuna's GP takes tenths of a second, one of bananas tens of milliseconds; both learn from few trials.
SLOW = ("gp", "bananas")
NESTED = ModelSpace.load(f"{SPACES}:Nested", (1, 8, 8), 10)


class OfNni:
    """Conditional choices as NNI has them, too: a choice within another one."""

    @pytest.fixture(params=[Conditional(), NESTED], ids=["", "nni"])
    def conditional(self, request: pytest.FixtureRequest) -> Space:
        return request.param


class TestOfOptuna(OfNni, SamplerContract):
    sampler = "optuna.samplers:QMCSampler"


class TestNotLearning(OfNni, UntriedSamplerContract):
    sampler = NOT_LEARNING


class TestLearning(OfNni, LearningSamplerContract):
    sampler = tuple(n for n in built_in_names("slimsearch.strategies.samplers") if n not in (*NOT_LEARNING, *SLOW))


class TestBananas(OfNni, LearningSamplerContract):
    sampler = "bananas"
    searched, searches = 30, 3


class TestGp(TestBananas):
    sampler = "gp"
    trials, proposals = 14, 6

    @pytest.mark.slow
    @pytest.mark.parametrize("count", ["one", "several"])
    def test_infeasible_trials_are_not_followed(
        self, new_sampler: Callable[[], Sampler], count: str, networks: Any
    ) -> None:
        super().test_infeasible_trials_are_not_followed(new_sampler, count, networks)
