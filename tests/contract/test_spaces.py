"""The laws of spaces, kept by built-ins, by spaces written with NNI or as functions, and by spaces without networks."""

from __future__ import annotations

from slimsearch.names import built_in_names
from slimsearch.search_spaces import ChoiceSpace
from slimsearch.testing import ModelSpaceContract, SpaceContract
from slimsearch.testing.samplers import Conditional
from tests.conftest import DEFINED, SPACES
from tests.defined import OfChoices, nested, of_choices, rare, with_training, with_values


class TestBuiltIn(ModelSpaceContract):
    space = tuple(built_in_names("slimsearch.search_spaces"))


class TestOfNni(ModelSpaceContract):
    space = tuple(f"{SPACES}:{name}" for name in ("Tiny", "Nested", "WithCell", "Constrained"))
    input_shape = (1, 8, 8)


class TestOfFunctions(ModelSpaceContract):
    space = (
        nested, with_values, with_training, rare, of_choices, OfChoices, f"{DEFINED}:small", f"{DEFINED}:constrained",
    )  # fmt: skip
    input_shape = (1, 8, 8)


class TestOfChoices(SpaceContract):
    space = (ChoiceSpace({"depth": [1, 2, 3], "rate": [0.1, 0.2]}), Conditional())
