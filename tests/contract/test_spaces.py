"""The laws of spaces, kept by built-ins, by spaces written with NNI or as functions, and by spaces without networks."""

from __future__ import annotations

from types import SimpleNamespace

from slimsearch.names import built_in_names
from slimsearch.search_spaces import ChoiceSpace, ElasticSpace, FixedModel
from slimsearch.testing import ModelSpaceContract, SpaceContract
from slimsearch.testing.samplers import Conditional
from tests.conftest import DEFINED, SPACES
from tests.defined import OfChoices, nested, of_choices, rare, with_training, with_values


class TestBuiltIn(ModelSpaceContract):
    space = tuple(sorted({*built_in_names("slimsearch.search_spaces")} - {"mlp", "signal_cnn", "unet_small"}))


class TestOfTables(ModelSpaceContract):
    space = "mlp"
    input_shape = (13,)
    num_classes = 1


class TestOfSignals(ModelSpaceContract):
    space = "signal_cnn"
    input_shape = (3, 50)


class TestOfMasks(ModelSpaceContract):
    space = "unet_small"
    input_shape = (2, 20, 30)  # not a multiple of the scale of the smallest map
    num_classes = 3
    output_shape = (3, 20, 30)


class TestOfNni(ModelSpaceContract):
    space = tuple(f"{SPACES}:{name}" for name in ("Tiny", "Nested", "WithCell", "Constrained"))
    input_shape = (1, 8, 8)


class TestOfFunctions(ModelSpaceContract):
    space = (
        nested, with_values, with_training, rare, of_choices, OfChoices, f"{DEFINED}:small", f"{DEFINED}:constrained",
    )  # fmt: skip
    input_shape = (1, 8, 8)


DEPTHS = (
    SimpleNamespace(label="skip.a", skipped={0: (), 1: ("a.1",), 2: ("a.1", "a.0")}),
    SimpleNamespace(label="skip.b", skipped={0: (), 1: ("b.0",)}),
)
WIDTHS = (
    SimpleNamespace(label="width.stem", blocks=(None,), widths={1.0: (8,), 0.5: (4,)}),
    # The first group is the same at 1.0 and 0.75.
    SimpleNamespace(
        label="hidden.a", blocks=("a.0", "a.1"), widths={1.0: (2, 32), 0.75: (2, 24), 0.5: (1, 16), 0.25: (1, 8)}
    ),
    SimpleNamespace(label="hidden.b", blocks=("b.0",), widths={1.0: (16,), 0.5: (8,)}),
)


class TestOfChoices(SpaceContract):
    space = (
        ChoiceSpace({"depth": [1, 2, 3], "rate": [0.1, 0.2]}),
        Conditional(),
        ElasticSpace(FixedModel(dict, (1, 8, 8), 10), DEPTHS, WIDTHS),
    )
