"""The laws of samplers, kept by every built-in and by one of Optuna's."""

from __future__ import annotations

import pytest

from slimsearch.names import built_in_names
from slimsearch.search_spaces import ModelSpace, Space
from slimsearch.testing import LearningSamplerContract, SamplerContract, UntriedSamplerContract
from slimsearch.testing.samplers import Conditional
from tests.conftest import SPACES

NOT_LEARNING = ("random", "grid")
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
    sampler = tuple(n for n in built_in_names("slimsearch.strategies.samplers") if n not in NOT_LEARNING)
