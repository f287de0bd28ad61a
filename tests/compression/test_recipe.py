"""Recipes: text to data, data to stages, stages to groups."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimsearch import compression
from slimsearch.compression import Network, Part, Training, TrainingStage, train_together
from slimsearch.errors import SlimsearchError


def test_options() -> None:
    recipe = compression.parse("prune:sparsity=0.6:epochs=2, distill:temperature=2, quantize:per-channel=false")
    assert recipe == {
        "prune": {"sparsity": 0.6, "epochs": 2},
        "distill": {"temperature": 2},
        "quantize": {"per_channel": False},
    }
    assert list(recipe) == ["prune", "distill", "quantize"]


@pytest.mark.parametrize("text", ["", "none", "None", "  "])
def test_nothing(text: str) -> None:
    assert compression.parse(text) == {}


def test_neighbours_that_train_are_one_group() -> None:
    groups = list(compression.groups(compression.parse("prune,distill,quantize")))
    assert [list(group) for group in groups] == [["prune", "distill"], ["quantize"]]
    assert [list(g) for g in compression.groups(compression.parse("distill,prune"))] == [["distill", "prune"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prun", "unknown stage 'prun'; known: adaptive1d_layerwise, .*distill, .*prune, .*quantize"),
        ("prune:speed=3", "'prune' has no option 'speed'; it has sparsity"),
        ("prune:sparsity=1.5", "sparsity 1.5 is not between 0 and 1"),
        ("prune:sparsity", "not of the form name=value"),
        ("prune:sparsity=much", "stage 'prune'"),
        ("quantize,prune", "nothing can follow 'quantize': put 'prune' before it"),
        ("prune,prune", "stands twice"),
        ("quantize:target=arm", "target 'arm' is none of any, vnni"),
        ("distill:temperature=0", "temperature 0 is not above 0"),
        ("distill:teacher=me", "teacher 'me' is none of parent, best"),
        ("prune,,quantize", "unknown stage ''"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said):
        compression.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_recipe_or_a_clear_mistake(text: str) -> None:
    with contextlib.suppress(SlimsearchError):
        assert isinstance(compression.parse(text), dict)


def test_remainder() -> None:
    whole = compression.parse("prune,distill,quantize")
    assert compression.remainder(whole, {"prune": {}, "distill": {}}) == {"quantize": {}}
    assert compression.remainder(whole, {}) == whole
    with pytest.raises(SlimsearchError, match="does not begin with"):
        compression.remainder(whole, {"quantize": {}})
    with pytest.raises(SlimsearchError, match="does not begin with"):
        compression.remainder(whole, {"prune": {"sparsity": 0.9}})


def test_stages_that_train_together_share_one_run() -> None:
    events: list[str] = []

    class Noted(TrainingStage):
        def __init__(self, name: str, epochs: int, is_last: bool = False) -> None:
            self.name, self.epochs, self.is_last = name, epochs, is_last

        def begin(self, network: Network, training: Training) -> Part:
            events.append(f"begin {self.name}")

            def finish(network: Network) -> Network:
                events.append(f"finish {self.name}")
                return network

            return Part(network, [Term(self.name)], [f"step of {self.name}"], finish)

    class Term:
        weight = 0.25

        def __init__(self, name: str) -> None:
            self.name = name

        def __repr__(self) -> str:
            return f"loss of {self.name}"

    class OneRun:
        seed, epochs, calibration = 0, 7, torch.zeros(1)

        def fit(self, network: Network, **settings: object) -> Network:
            events.append(f"fit {settings}")
            return network

    train_together([Noted("a", 2), Noted("b", 5)], Network(torch.nn.Identity()), OneRun())
    assert events == [
        "begin a",
        "begin b",
        "fit {'epochs': 5, 'learning_rate': None, 'losses': [loss of a, loss of b], "
        "'after_step': ['step of a', 'step of b']}",
        "finish b",
        "finish a",
    ]


def test_steps_and_how_long_they_train() -> None:
    recipe = compression.parse("prune:sparsity=0.5:epochs=6,distill,quantize")
    assert compression.steps({}, 4) == []
    assert [(list(group), share) for group, share in compression.steps(recipe, 4)] == [
        (["prune", "distill"], 1.5), (["quantize"], 0.0),
    ]  # fmt: skip
    told = compression.parse("low_rank:epochs=0,cluster")
    assert [share for _, share in compression.steps(told, 4)] == [0.0, 1.0]
