"""The laws of spaces, kept by every built-in, by spaces written with NNI, and by spaces without networks."""

from __future__ import annotations

from slimsearch.names import built_in_names
from slimsearch.search_spaces import ChoiceSpace
from slimsearch.testing import ModelSpaceContract, SpaceContract
from slimsearch.testing.samplers import Conditional
from tests.conftest import SPACES


class TestBuiltIn(ModelSpaceContract):
    space = tuple(built_in_names("slimsearch.search_spaces"))


class TestOfNni(ModelSpaceContract):
    space = tuple(f"{SPACES}:{name}" for name in ("Tiny", "Nested", "WithCell", "Constrained"))
    input_shape = (1, 8, 8)


class TestOfChoices(SpaceContract):
    space = (ChoiceSpace({"depth": [1, 2, 3], "rate": [0.1, 0.2]}), Conditional())
