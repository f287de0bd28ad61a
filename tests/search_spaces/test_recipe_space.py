"""Recipes as a space: what is active, what a point stands for and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from slimsearch.errors import SlimsearchError
from slimsearch.search_spaces import ChoiceSpace, FixedModel, JointSpace, RecipeSpace, Subset

CONTENT: dict[str, Any] = {
    "training": {"learning_rate": [0.002, 0.005], "augmentation": "none"},
    "prune": {
        "use": [True, False],
        "sparsity": [0.25, 0.5, 0.75],
        "importance": "l1",
        "epochs": {"values": [2, 4], "when": {"prune.sparsity": [0.5, 0.75]}},
    },
    "quantize": {"use": [True, False], "calibration": {"values": ["minmax", "entropy"]}},
    "weight_only": {"use": {"values": [True, False], "when": {"quantize.use": False}}, "dtype": ["int8", "fp16"]},
}


@pytest.fixture
def space() -> RecipeSpace:
    return RecipeSpace(CONTENT)


def test_every_point_is_a_different_recipe_and_back(space: RecipeSpace) -> None:
    points = list(space.grid())
    # 2 rates x (no pruning, .25, .5 and .75 with two lengths each) x (two calibrations, or none with 3 storages)
    assert len(points) == 2 * (1 + 1 + 2 * 2) * (2 + 3)
    candidates = [space.candidate(point) for point in points]
    assert len({candidate.key for candidate in candidates}) == len(points)
    assert [space.point(candidate) for candidate in candidates] == points


def test_inactive_options_are_left_out(space: RecipeSpace) -> None:
    point = space.complete({"prune.use": False, "quantize.use": True})
    assert space.canonical(point) == {
        "training.learning_rate": 0.002, "prune.use": False, "quantize.use": True, "quantize.calibration": "minmax",
    }  # fmt: skip
    candidate = space.candidate(point)
    assert candidate.recipe == {"quantize": {"calibration": "minmax"}}
    assert candidate.training == {"learning_rate": 0.002, "augmentation": "none"}
    stored = space.candidate(space.complete({"prune.sparsity": 0.25, "quantize.use": False, "weight_only.use": True}))
    assert stored.recipe == {"prune": {"sparsity": 0.25, "importance": "l1"}, "weight_only": {"dtype": "int8"}}
    assert list(stored.recipe) == ["prune", "weight_only"], "in the order of the file"


def test_samplers_can_move_in_it(space: RecipeSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        point = space.sample(rng)
        assert space.canonical(point) == point
        assert space.canonical(space.mutate(point, rng)) != point
        assert space.contains(space.crossover(point, space.sample(rng), rng))


def test_joint_points_are_both(space: RecipeSpace) -> None:
    joint = JointSpace(ChoiceSpace({"width": [8, 16], "act": ["relu", "tanh"]}), space)
    rng = np.random.default_rng(1)
    for _ in range(50):
        point = joint.sample(rng)
        candidate = joint.candidate(point)
        assert joint.point(candidate) == point
        assert candidate.architecture == joint.architecture(point)
        assert set(candidate.architecture) == {"width", "act"}
    with pytest.raises(SlimsearchError, match=r"both have a choice 'prune\.use'"):
        JointSpace(ChoiceSpace({"prune.use": [1, 2]}), space)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "is not a mapping of stages"),
        (["prune"], "is not a mapping of stages"),
        ({"prune": [1]}, "'prune' is not a mapping of options"),
        ({"prune": {"sparsity": []}}, "'prune.sparsity' has no values"),
        ({"prune": {"sparsity": {"value": [1]}}}, "'prune.sparsity' is a mapping without values"),
        ({"prune": {"sparsity": {"values": [1, 2], "if": 3}}}, "has more than values and when"),
        ({"prune": {"sparsity": [0.5, 0.5]}}, "choice 'prune.sparsity' has a value twice"),
        ({"prune": {"use": [1.5, True]}}, "'prune.use' is true, false, or both"),
        ({"training": {"use": [True, False]}}, "training cannot be left out"),
        ({"a": {"x": {"values": [1, 2], "when": {"b.y": 1}}}, "b": {"y": [1, 2]}}, "'a.x' waits for 'b.y'"),
        ({"b": {"y": [1, 2]}, "a": {"x": {"values": [1, 2], "when": {"b.y": 3}}}}, "'b.y' cannot be 3"),
    ],
)
def test_mistakes_are_clear_errors(content: Any, said: str) -> None:
    with pytest.raises(SlimsearchError, match=said) as caught:
        RecipeSpace(content)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_clear_errors(tmp_path: Path) -> None:
    for text in ("- 1", "a: [", "!!python/object/apply:os.getcwd []", "\x00"):
        (tmp_path / "recipes.yaml").write_text(text)
        with pytest.raises(SlimsearchError, match=r"recipes\.yaml'"):
            RecipeSpace.read(tmp_path / "recipes.yaml")
    with pytest.raises(SlimsearchError, match=r"there is no recipe space '.*nowhere\.yaml'; shipped: default"):
        RecipeSpace.read(tmp_path / "nowhere.yaml")
    assert set(RecipeSpace.shipped()) == {"default", "elastic", "precision"}
    assert RecipeSpace.read(RecipeSpace.shipped()["default"]).size > 10


def test_recipes_of_a_few_architectures_among_many() -> None:
    """As after a search: two networks of a million."""
    many = ChoiceSpace({f"width{place}": list(range(10)) for place in range(6)})
    few = [dict.fromkeys((f"width{place}" for place in range(6)), value) for value in (3, 7)]
    recipes = RecipeSpace({"quantize": {"use": [True, False], "keep_float": ["none", "ends"]}})
    joint = JointSpace(Subset(many, few), recipes)
    rng = np.random.default_rng(0)
    assert len(list(joint.grid())) == 6
    assert joint.size == 2 * recipes.size
    points = [joint.sample(rng) for _ in range(50)]
    assert {point["width0"] for point in points} == {3, 7}
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 6
    for point in points[:10]:
        neighbours = list(joint.shuffled_neighbours(point, rng))
        assert all(joint.contains(neighbour) and neighbour != point for neighbour in neighbours)
        assert any(neighbour["width0"] != point["width0"] for neighbour in neighbours)
        assert any(neighbour["width0"] == point["width0"] for neighbour in neighbours)
        assert joint.contains(joint.mutate(point, rng))
        assert joint.contains(joint.crossover(point, points[11], rng))


def test_every_move_of_a_joint_space_is_as_likely_as_every_other() -> None:
    joint = JointSpace(
        ChoiceSpace({"width": [8, 16, 24, 32], "act": ["relu", "tanh"]}),
        RecipeSpace({"quantize": {"keep_float": ["none", "ends"]}}),
    )
    rng, start = np.random.default_rng(0), {"width": 8, "act": "relu", "quantize.keep_float": "none"}
    changed = [joint.mutate(start, rng) for _ in range(1500)]
    shares = {label: np.mean([point[label] != start[label] for point in changed]) for label in start}
    assert shares == {
        "width": pytest.approx(0.6, abs=0.05), "act": pytest.approx(0.2, abs=0.05),
        "quantize.keep_float": pytest.approx(0.2, abs=0.05),
    }  # fmt: skip


def steps(recipe: Any) -> list[tuple[Any, float]]:
    """Stages are applied one by one; what only stores trains nothing."""
    return [({stage: options}, 0.5 if stage == "prune" else 0.0) for stage, options in recipe.items()]


def test_lineages(space: RecipeSpace) -> None:
    architectures = ChoiceSpace({"width": [8, 16]})
    joint = JointSpace(architectures, space, steps)
    pruned = {"training.learning_rate": 0.002, "prune.use": True, "prune.sparsity": 0.25}
    stored = {"quantize.use": False, "weight_only.use": False}
    parent = {"training.learning_rate": 0.002, "prune.use": False, **stored}
    way = {
        name: joint.lineage(joint.canonical({"width": 8, **recipe}))
        for name, recipe in {
            "parent": parent,
            "pruned": {**pruned, **stored},
            "both": {**pruned, "quantize.use": True, "quantize.calibration": "minmax"},
            "faster": {**parent, "training.learning_rate": 0.005},
        }.items()
    }
    assert [stop.trainings for stop in way["parent"]] == [1.0]
    assert [stop.trainings for stop in way["pruned"]] == [1.0, 0.5]
    assert [stop.point for stop in way["pruned"]] == [{"width": 8, **parent}, {"width": 8, **pruned, **stored}]
    assert way["both"] == way["pruned"], "to quantize takes no training"
    assert way["parent"] == way["pruned"][:1]
    assert way["faster"][0].name != way["parent"][0].name, "it is trained otherwise"
    assert joint.lineage({"width": 16, **parent})[0].name != way["parent"][0].name
    assert JointSpace(architectures, space).lineage({"width": 8, **parent}) == []
    assert architectures.lineage({"width": 8}) == []


def test_a_given_network_costs_no_training(space: RecipeSpace) -> None:
    joint = JointSpace(FixedModel(lambda: nn.Identity(), (3, 8, 8), 10), space, steps)
    stored = {"quantize.use": False, "weight_only.use": False}
    pruned = {"training.learning_rate": 0.002, "prune.use": True, "prune.sparsity": 0.25, **stored}
    whole = {"training.learning_rate": 0.002, "prune.use": False, **stored}
    assert [stop.trainings for stop in joint.lineage(whole)] == [0.0]
    assert [stop.trainings for stop in joint.lineage(pruned)] == [0.0, 0.5]
    assert joint.lineage(pruned)[0] == joint.lineage(whole)[0]
    free = [joint.candidate(point).recipe.keys() for point in joint.derived_points(whole)]
    assert {"quantize"} in free
    assert not any("prune" in recipe for recipe in free)


def test_derived_points_need_no_training(space: RecipeSpace, rng: np.random.Generator) -> None:
    joint = JointSpace(ChoiceSpace({"width": [8, 16]}), space, steps)
    everything = list(joint.grid())
    for _ in range(20):
        point = joint.sample(rng)
        trained = {network.name for network in joint.lineage(point)}
        free = [p for p in everything if {network.name for network in joint.lineage(p)} <= trained]
        assert sorted(map(str, joint.derived_points(point))) == sorted(map(str, free))
    assert joint.untrained_stages(point).keys() <= {"quantize", "weight_only"}
    assert list(JointSpace(ChoiceSpace({"width": [8, 16]}), space).derived_points(point)) == []


def test_few_of_many_number_formats_are_derived(rng: np.random.Generator) -> None:
    recipes = RecipeSpace({"prune": {"use": [True, False]}, "quantize": {"bits": list(range(40))}})
    joint = JointSpace(ChoiceSpace({"width": [8, 16]}), recipes, steps)
    pruned = {"width": 8, "prune.use": True, "quantize.bits": 0}
    derived = list(joint.derived_points(pruned))
    assert len(derived) == len({str(p) for p in derived})
    assert all(20 <= 2 * sum(p["prune.use"] is use for p in derived) <= 32 for use in (True, False))


def test_related_points_share_networks(space: RecipeSpace, rng: np.random.Generator) -> None:
    joint = JointSpace(ChoiceSpace({"width": [8, 16]}), space, steps)
    for _ in range(50):
        point = joint.sample(rng)
        first, found = joint.lineage(point)[0], list(joint.related_points(point, rng))
        for relative in found:
            assert joint.canonical(relative) == relative
            assert joint.lineage(relative)[0] == first
        recipes = [joint.candidate(relative).recipe for relative in found]
        assert {} in recipes, "the trained network itself"
        assert {"quantize": {"calibration": "minmax"}} in recipes or point["quantize.use"]
    assert list(JointSpace(ChoiceSpace({"width": [8, 16]}), space).related_points(point, rng)) == []


def test_related_points_have_all_fixed_stages(rng: np.random.Generator) -> None:
    recipes = RecipeSpace({"prune": {"sparsity": [0.25, 0.5]}, "quantize": {"use": [True, False]}})
    joint = JointSpace(ChoiceSpace({"width": [8, 16]}), recipes, steps)
    relatives = list(joint.related_points({"width": 8, "prune.sparsity": 0.25, "quantize.use": True}, rng))
    assert relatives
    assert all("prune" in joint.candidate(relative).recipe for relative in relatives)
    way = joint.lineage(relatives[0])
    assert [stop.trainings for stop in way] == [1.0, 0.5]
    assert [stop.point is None for stop in way] == [True, False], "the space has no network that is not pruned"
