"""Recipes: text to data, data to stages, stages to groups."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.compression import Network, Part, Recipe, Training, TrainingStage, train_together
from slimsearch.errors import SlimsearchError


def test_options() -> None:
    recipe = Recipe.parse("prune:sparsity=0.6:epochs=2, distill:temperature=2, quantize:per-channel=false")
    assert recipe.to_dict() == {
        "prune": {"sparsity": 0.6, "epochs": 2},
        "distill": {"temperature": 2},
        "quantize": {"per_channel": False},
    }
    assert [stage.name for stage in recipe.stages] == ["prune", "distill", "quantize"]


@pytest.mark.parametrize("text", ["", "none", "None", "  ", "{}"])
def test_nothing(text: str) -> None:
    assert Recipe.parse(text) == Recipe()
    assert not Recipe.parse(text)
    assert Recipe().text() == "none"


def test_stages_that_share_a_training_run_are_one_group() -> None:
    assert _names(Recipe.parse("prune,distill,quantize")) == [["prune", "distill"], ["quantize"]]
    assert _names(Recipe.parse("distill,prune")) == [["distill", "prune"]]
    assert _names(Recipe.parse("prune,lsq")) == [["prune"], ["lsq"]]
    assert _names(Recipe.parse("prune+lsq")) == [["prune", "lsq"]]
    assert Recipe.parse("prune,distill,quantize").changes_cost
    assert not Recipe.parse("distill").changes_cost


def _names(recipe: Recipe) -> list[list[str]]:
    return [[stage.name for stage in group.stages] for group in recipe.groups]


def test_the_stored_form_keeps_the_words_of_the_user() -> None:
    """Records and top_models.json are compared by it, also those of earlier versions."""
    joined, implied = Recipe.parse("prune+distill"), Recipe.parse("prune,distill")
    assert joined.to_dict() == {"prune": {}, "+distill": {}}
    assert implied.to_dict() == {"prune": {}, "distill": {}}
    assert joined != implied
    for recipe in (joined, implied):
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert Recipe.parse(recipe.to_dict()) == recipe
        assert Recipe.parse(recipe.text()) == recipe
        assert hash(Recipe.parse(recipe.text())) == hash(recipe)
    assert Recipe.from_dict({"prune": {"epochs": 2, "sparsity": 0.5}}) == Recipe.parse("prune:sparsity=0.5:epochs=2")
    assert Recipe.parse("prune:sparsity=0.5,quantize") != Recipe.parse("prune:sparsity=0.6,quantize")


def test_paths_are_absolute_once_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from slimsearch.compression import Stage\n\n\n"
        "class Mine(Stage):\n"
        "    def __init__(self, names=()):\n        self.names = names\n\n"
        "    def apply(self, network, training):\n        return network\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.parse("mine.py:Mine,distill:teacher=teacher.onnx")
    mine, teacher = f"{tmp_path}/mine.py:Mine", f"{tmp_path}/teacher.onnx"
    assert recipe.to_dict() == {mine: {}, "distill": {"teacher": teacher}}
    assert recipe.text() == f"{mine},distill:teacher={teacher}"
    several = Recipe.parse({"mine.py:Mine": {"names": ["a", "b:c"]}})
    assert Recipe.parse(several.text()) == several
    with pytest.raises(SlimsearchError, match="is not JSON serializable"):
        Recipe.parse({"mine.py:Mine": {"names": tmp_path}})


def test_an_option_for_every_stage_that_has_it() -> None:
    recipe = Recipe.parse("prune+lsq:target=any").with_option("target", "vnni")
    assert recipe.to_dict() == {"prune": {}, "+lsq": {"target": "any"}}
    assert Recipe.parse("prune,quantize").with_option("target", "vnni").to_dict() == {
        "prune": {}, "quantize": {"target": "vnni"},
    }  # fmt: skip
    with pytest.raises(SlimsearchError, match="target 'arm' is none of"):
        Recipe.parse("quantize").with_option("target", "arm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prun", "unknown stage 'prun'; known: adaptive1d_layerwise, .*distill, .*prune, .*quantize"),
        ("prune:speed=3", "'prune' has no option 'speed'; it has importance"),
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
        Recipe.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_recipe_or_a_clear_mistake(text: str) -> None:
    with contextlib.suppress(SlimsearchError):
        assert isinstance(Recipe.parse(text), Recipe)


def test_remainder() -> None:
    whole = Recipe.parse("prune,distill,quantize")
    assert whole.remainder(Recipe.parse("prune,distill")) == Recipe.parse("quantize")
    assert whole.remainder(Recipe()) == whole
    assert whole.begins_with(Recipe.parse("prune"))
    for other in ("quantize", "prune:sparsity=0.9", "prune,distill,quantize:target=vnni"):
        assert not whole.begins_with(Recipe.parse(other))
        with pytest.raises(SlimsearchError, match="does not begin with"):
            whole.remainder(Recipe.parse(other))


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
            losses, callbacks = settings["losses"], settings["after_step"]
            events.append(f"fit {settings['epochs']} {settings['learning_rate']} {losses} {callbacks}")
            return network

    train_together([Noted("a", 2), Noted("b", 5)], Network(torch.nn.Identity()), OneRun())
    assert events == [
        "begin a",
        "begin b",
        "fit 5 None [loss of a, loss of b] ['step of a', 'step of b']",
        "finish b",
        "finish a",
    ]


def test_steps_and_how_long_they_train() -> None:
    recipe = Recipe.parse("prune:sparsity=0.5:epochs=6,distill,quantize")
    assert Recipe().steps(4) == []
    assert [([*group.to_dict()], share) for group, share in recipe.steps(4)] == [
        (["prune", "distill"], 1.5), (["quantize"], 0.0),
    ]  # fmt: skip
    assert [share for _, share in Recipe.parse("low_rank:epochs=0,cluster").steps(4)] == [0.0, 1.0]


@pytest.mark.parametrize(
    "recipe",
    [
        "prune:learning_rate=1e-3+distill:learning_rate=1e-2",
        "prune:learning_rate=1e-3,distill:learning_rate=1e-2",
        {"prune": {"learning_rate": 1e-3}, "+dynamic_layerwise": {}, "+qat": {"learning_rate": 2e-3}},
    ],
)
def test_one_training_run_has_one_learning_rate(recipe: str | dict[str, dict[str, float]]) -> None:
    with pytest.raises(SlimsearchError, match="share one training run"):
        Recipe.parse(recipe)
    assert Recipe.parse("prune:learning_rate=1e-3+distill:learning_rate=1e-3+qat")
    assert Recipe.parse("prune:learning_rate=1e-3,qat:learning_rate=1e-2"), "of two training runs"


@settings(deadline=None)  # imports PyTorch
@given(st.floats(1e-9, 1e9, exclude_min=True).map(repr) | st.sampled_from(["1e-3", "1E-3", "5.e-4", ".5e+0", "2e2"]))
def test_numbers_with_exponents_are_numbers(text: str) -> None:
    recipe = Recipe.parse(f"distill:temperature={text}")
    assert recipe.to_dict() == {"distill": {"temperature": float(text)}}
    assert Recipe.parse(recipe.text()) == recipe
    assert Recipe.parse(json.dumps(recipe.to_dict())) == recipe


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    assert Recipe.parse({"distill": {"teacher": "1e5.onnx"}}).stages[0].options["teacher"].endswith("/1e5.onnx")
    (tmp_path / "recipe.yaml").write_text("distill: {temperature: 1e0}\nquantize:\n")
    assert Recipe.parse(str(tmp_path / "recipe.yaml")).to_dict()["distill"] == {"temperature": 1.0}


def test_a_teacher_that_is_not_there(tmp_path: Path) -> None:
    recipe = Recipe.parse(f"distill:teacher={tmp_path}/teacher.onnx")
    with pytest.raises(SlimsearchError, match=r"stage 'distill': .*there is no file '.*teacher.onnx'"):
        recipe.check()
    (tmp_path / "teacher.onnx").touch()
    recipe.check()
