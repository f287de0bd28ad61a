"""Spaces from plain PyTorch: functions of a trial, also random ones, and functions of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import slimsearch
from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective, Outcome
from slimsearch.evaluators.datasets import Dataset
from slimsearch.loop.search import ArchitectureSearch, Budget
from slimsearch.options.configuration import Configuration
from slimsearch.options.recipe_choices import recipe_choices
from slimsearch.record.ranking import Ranking
from slimsearch.record.record import Record
from slimsearch.record.run_directory import RunDirectory
from slimsearch.search_spaces import Candidate, ModelSpace, NniSpace, Space, Subset
from slimsearch.strategies.samplers import Sampler, load_sampler
from tests import defined
from tests.conftest import DEFINED, SPACES

SHAPE = (1, 8, 8)


def space_of(code: Any, build: Any = None) -> ModelSpace:
    return ModelSpace.load(code, SHAPE, 10, build)


# Random functions: a list of steps, as plain data. A step asks for a label, and goes on with other steps for some of
# its values; or repeats steps as often as an answer says; or rules out two answers together.


@st.composite
def programs(draw: st.DrawFn) -> list[Any]:
    labels = iter(f"c{number}" for number in range(1000))

    def steps(depth: int, least: int) -> list[Any]:
        return [step(depth) for _ in range(draw(st.integers(least, 3 - depth)))]

    def step(depth: int) -> Any:
        label = next(labels)
        if depth < 2 and draw(st.integers(0, 4)) == 0:
            return ("loop", label, draw(st.integers(0, 1)), 2, steps(depth + 1, 1))
        values = draw(st.sampled_from([[8, 16], ["a", "b", "c"], [False, True], [0.1, None, [3, 3]]]))
        branches = {json.dumps(value): steps(depth + 1, 0) for value in values if depth < 2 and draw(st.booleans())}
        return ("ask", label, values, branches)

    found = [("ask", next(labels), [1, 2], {}), *steps(0, 1)]
    asked = [one for one in found if one[0] == "ask"]
    if len(asked) > 1 and draw(st.integers(0, 3)) == 0:
        found.append(("rule out", asked[0][1], asked[0][2][1], asked[1][1], asked[1][2][1]))
    return found


def carry_out(trial: Any, steps: list[Any], answers: dict[str, Any], suffix: str = "") -> None:
    for kind, *rest in steps:
        if kind == "ask":
            label, values, branches = rest
            answers[label + suffix] = value = trial.suggest_categorical(label + suffix, values)
            carry_out(trial, branches.get(json.dumps(value), []), answers, suffix)
        elif kind == "loop":
            label, low, high, body = rest
            answers[label + suffix] = count = trial.suggest_int(label + suffix, low, high)
            for index in range(count):
                carry_out(trial, body, answers, f"{suffix}_{index}")
        else:
            one, its, other, others = rest
            if answers[one] == its and answers[other] == others:
                raise optuna.TrialPruned


def define_of(steps: list[Any]) -> Callable[[Any], nn.Module]:
    def define(trial: Any) -> nn.Module:
        carry_out(trial, steps, {})
        return nn.Identity()

    return define


class Scripted:
    """Answers by position, to walk through all runs of a function; the value of a label is that of its first answer."""

    def __init__(self, script: list[int]) -> None:
        self.script, self.asked, self.answers = script, list[int](), dict[str, Any]()

    def suggest_categorical(self, label: str, values: list[Any]) -> Any:
        number = self.script[len(self.asked)] if len(self.asked) < len(self.script) else 0
        self.asked.append(len(values))
        self.answers[label] = values[number]
        return values[number]

    def suggest_int(self, label: str, low: int, high: int) -> Any:
        return self.suggest_categorical(label, list(range(low, high + 1)))


def every_run(steps: list[Any], most: int) -> Iterator[dict[str, Any]]:
    """The answers of each different run of a function that is not ruled out; at most `most` runs are looked at."""
    script: list[int] = []
    for _ in range(most):
        trial = Scripted(script)
        try:
            carry_out(trial, steps, {})
        except optuna.TrialPruned:
            pass
        else:
            yield trial.answers
        script = [*script, *[0] * (len(trial.asked) - len(script))]
        while script and script[-1] + 1 == trial.asked[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1
    yield {}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 2**32 - 1))
def test_random_functions(steps: list[Any], seed: int) -> None:
    """Points are what the runs of the function are: each once, found again in every way in which points are made."""
    space, rng = space_of(define_of(steps)), np.random.default_rng(seed)
    runs = list(every_run(steps, 200))
    if runs[-1]:
        keys = {Candidate(answers).key for answers in runs}
        points = list(space.grid())
        assert {Candidate(point).key for point in points} == keys
        assert len(points) == len(keys)
    for answers in [one for one in runs if one][:20]:
        filled = space.complete(answers)
        assert space.canonical(answers) == answers == space.canonical(filled) == space.confirmed(answers)
        assert list(space.canonical(answers)) == [c.label for c in space.choices if c.label in answers]
        for label in answers:
            assert not space.contains({name: value for name, value in answers.items() if name != label})
        for other in space.neighbours(answers):
            changed = [label for label in answers if label in other and other[label] != answers[label]]
            assert len(changed) == 1
            assert space.confirmed(other) == other
    copy = cloudpickle.loads(cloudpickle.dumps(space))
    assert copy.choices == space.choices
    for _ in range(5):
        point = space.sample(rng)
        assert copy.canonical(point) == space.confirmed(point) == point
        assert isinstance(copy.build(point), nn.Module)


RANKING = Ranking((Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")))


def proposals(space: Space, sampler: str | Sampler, folder: Path, count: int) -> list[Mapping[str, Any]]:
    """What a search has proposed after `count` more trials, in a folder that may have a record of earlier ones."""
    with RunDirectory(folder, create=not folder.exists()) as directory:
        directory.config.touch()
        record = Record(directory.open_study(RANKING.objectives), space, RANKING.objectives)
        chosen = load_sampler(sampler) if isinstance(sampler, str) else sampler
        search = ArchitectureSearch(space, chosen, RANKING, record, directory, Budget(100, 1), seed=0)
        for _ in range(count):
            task = search.ask()
            if task is None:
                break
            text = json.dumps(sorted(task.candidate.architecture.items()))
            metrics = {"val_accuracy": sum(text.encode()) % 97 / 97, "size_kib": float(len(text))}
            search.tell(task.number, Outcome(metrics))
        return [trial.candidate.architecture for trial in record.trials]


@settings(max_examples=4, deadline=None, derandomize=True)
@given(programs(), st.sampled_from(["graph_gp", "tpe", "regularized_evolution"]), st.integers(1, 13))
def test_a_resumed_search_of_a_random_function_proposes_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], sampler: str, cut: int
) -> None:
    folder, define = tmp_path_factory.mktemp("run"), define_of(steps)
    whole = proposals(space_of(define), sampler, folder / "whole", 14)
    proposals(space_of(define), sampler, folder / "cut", cut)
    assert proposals(space_of(define), sampler, folder / "cut", 14 - cut) == whole
    assert len({json.dumps(one, sort_keys=True) for one in whole}) == len(whole)


class _Rare:
    """Proposes the point at which `rare` has one choice more, then neighbors of it."""

    def propose(self, space: Space, objectives: Any, history: Any, rng: np.random.Generator) -> Mapping[str, Any]:
        point = {"digit0": 7, "digit1": 11, "digit2": 13 if len(history.observations) % 3 else 12}
        if not space.contains(point) or history.tried(space.canonical(point)):
            return space.mutate({**point, "digit2": 12}, rng)
        return space.canonical(point)


def test_a_choice_that_appears_late_is_taken_in(tmp_path: Path) -> None:
    space = space_of(defined.rare)
    assert "width" not in {choice.label for choice in space.choices}
    whole = proposals(space, _Rare(), tmp_path / "whole", 8)
    assert "width" in {choice.label for choice in space.choices}
    assert next(one for one in whole if "width" in one) == {"digit0": 7, "digit1": 11, "digit2": 13, "width": 4}
    assert all(("width" in one) == (list(one.values())[:3] == [7, 11, 13]) for one in whole)
    # A resumed run, whose space has not seen it, learns of it from the record.
    proposals(space_of(defined.rare), _Rare(), tmp_path / "cut", 4)
    again = space_of(defined.rare)
    assert proposals(again, _Rare(), tmp_path / "cut", 4) == whole
    assert again.choices == space.choices
    # So does one that is given an architecture with it; another label is unknown there too.
    late = {"digit0": 7, "digit1": 11, "digit2": 13, "width": 8}
    assert slimsearch.build(defined.rare, late, input_shape=SHAPE)[1].out_features == 8 + 31
    assert Subset(space_of(defined.rare), [late]).size == 1
    with pytest.raises(SlimsearchError, match="width"):
        space_of(defined.rare).canonical({**late, "digit2": 12, "height": 8})


def test_a_point_that_is_ruled_out_late_is_not_tried(tmp_path: Path) -> None:
    space, wrong = space_of(defined.limited), {"digit0": 7, "digit1": 11, "digit2": 13}
    assert space.contains(wrong)
    whole = proposals(space, _Rare(), tmp_path / "whole", 6)
    assert len(whole) == 6
    assert wrong not in whole
    assert not space.contains(wrong)
    proposals(space_of(defined.limited), _Rare(), tmp_path / "cut", 3)
    assert proposals(space_of(defined.limited), _Rare(), tmp_path / "cut", 3) == whole


@pytest.mark.parametrize(
    ("ask", "values"),
    [
        (lambda trial: trial.suggest_int("x", 2, 5), [2, 3, 4, 5]),
        (lambda trial: trial.suggest_int("x", 2, 9, step=3), [2, 5, 8]),
        (lambda trial: trial.suggest_int("x", 1, 13, log=True), list(range(1, 14))),
        (
            lambda trial: trial.suggest_int("x", 8, 512, log=True),
            [8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512],
        ),
        (lambda trial: trial.suggest_float("x", 0, 0.5), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]),
        (lambda trial: trial.suggest_float("x", 0.1, 0.35, step=0.1), [0.1, 0.2, 0.3]),
        (
            lambda trial: trial.suggest_float("x", 1e-4, 1e-1, log=True),
            [1e-4, 1.78e-4, 3.16e-4, 5.62e-4, 1e-3, 1.78e-3, 3.16e-3, 5.62e-3, 1e-2, 1.78e-2, 3.16e-2, 5.62e-2, 1e-1],
        ),
        (lambda trial: trial.suggest_float("x", 0.25, 0.25), [0.25]),
        (lambda trial: trial.suggest_categorical("x", (3, None, "a", (1, 2))), [3, None, "a", [1, 2]]),
    ],
)
def test_the_values_of_a_choice(ask: Callable[[Any], Any], values: list[Any]) -> None:
    answers = []

    def define(trial: Any) -> nn.Module:
        trial.suggest_categorical("other", [1, 2])
        answers.append(ask(trial))
        assert trial.params["x"] == answers[-1]
        return nn.Linear(1, 1)

    space = space_of(define)
    assert list(space.choices[1].values) == values
    for value in values:
        space.build({"other": 1, "x": value})
        assert json.loads(json.dumps(answers[-1])) == value
    optuna.create_study().optimize(
        lambda trial: float(define(trial) is None), n_trials=1
    )  # Optuna's trials answer, too


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda trial: trial.suggest_int("x", 5, 2), "'x': low 5 is above high 2"),
        (lambda trial: trial.suggest_int("x", 1, 9.5), "'x': high 9.5 is not a whole number"),
        (lambda trial: trial.suggest_int("x", 1, 10**6), "'x' has 1,000,000 values"),
        (lambda trial: trial.suggest_int("x", 0, 9, log=True), "'x': low 0 is not above 0"),
        (lambda trial: trial.suggest_float("x", 0, 1, step=0), "'x': step 0 is not above 0"),
        (lambda trial: trial.suggest_float("x", 0, float("inf")), "'x': high inf is not a finite number"),
        (lambda trial: trial.suggest_categorical("x", [nn.ReLU, nn.Tanh]), "'x': .*; values are plain JSON"),
        (lambda trial: trial.suggest_categorical("x", []), "'x' has no values"),
        (lambda trial: trial.suggest_categorical("x", "ab"), "'x' needs a list of values"),
        (lambda trial: trial.suggest_categorical("", [1, 2]), "not ''"),
        (lambda trial: trial.set_user_attr("x", 1), "trial has no 'set_user_attr'"),
    ],
)
def test_wrong_questions_are_one_line(ask: Callable[[Any], Any], message: str) -> None:
    def define(trial: Any) -> nn.Module:
        ask(trial)
        return nn.Linear(1, 1)

    with pytest.raises(SlimsearchError, match=message):
        space_of(define).choices  # noqa: B018


@pytest.mark.parametrize(
    ("code", "build", "message"),
    [
        ("without_choices", None, "'without_choices' has no choices"),
        (lambda trial: nn.Linear(trial.suggest("x"), 2), None, "trial has no 'suggest'"),
        (lambda trial: nn.Linear(0.5, 2), None, r"<lambda> cannot build {} .*: TypeError"),
        (lambda trial: 3, None, "<lambda> returns a int, not a network"),
        ("at_random", None, "at_random asks for different choices .* again with the same answers"),
        ("two_meanings", None, "'last' is asked for with different values, 0, 1 and 0, 1, 2"),
        (
            "fails",
            None,
            r"fails cannot build {'width': 8} \(defined.py, line \d+\): RuntimeError: the function gave up",
        ),
        ("objective", None, "objective returns a float, not a network"),
        ("asks_for_more", None, "trial has no 'report'"),
        ("no_space", None, "'no_space' is not a space of networks, which is .*define\\(trial\\).*Literal"),
        ({"width": [8, 16]}, None, "needs build="),
        ({"width": 8}, "no_space", "'width' needs a list of values, not 8"),
        ({"width": [8, 8]}, "no_space", "'width' has a value twice"),
        ({"height": [1, 2]}, "no_space", "no_space cannot build {'height': 1}.*unexpected keyword argument 'height'"),
        ("small", "no_space", "build=... makes the networks of a dict of choices"),
        ({"width": [8, 16]}, 3, "build=3 is not a function"),
        (3, None, "a space of networks is .*; not 3"),
    ],
)
def test_what_is_no_space_is_one_line(code: Any, build: Any, message: str) -> None:
    code = getattr(defined, code) if isinstance(code, str) else code
    build = getattr(defined, build) if isinstance(build, str) else build
    with pytest.raises(SlimsearchError, match=message):  # noqa: PT012
        space = space_of(code, build)
        space.check(next(space.grid()))


def test_hyperparameters_of_the_training_are_no_choices_of_the_architecture() -> None:
    space = space_of(defined.with_training)
    assert [choice.label for choice in space.choices] == ["width", "act"]
    assert space.training.keys() == {"learning_rate", "batch_size", "augmentation"}
    assert space.size == 6
    of_choices = space_of({"width": [8, 16], "learning_rate": [0.1, 0.2]}, defined.no_space)
    assert of_choices.training == {"learning_rate": [0.1, 0.2]}
    assert of_choices.build({"width": 16})[1].out_features == 16

    def sometimes(trial: Any) -> nn.Module:
        if trial.suggest_categorical("width", [8, 16]) == 16:
            trial.suggest_float("learning_rate", 1e-3, 1e-2)
        return nn.Linear(1, 1)

    def pruned(trial: Any) -> nn.Module:
        if trial.suggest_categorical("width", [8, 16, 24]) == 16:
            raise optuna.TrialPruned
        if trial.suggest_categorical("depth", [1, 2]) == 2:
            raise RuntimeError("it cannot be built")
        trial.suggest_float("learning_rate", 1e-3, 1e-2)
        return nn.Linear(1, 1)

    assert space_of(pruned).training.keys() == {"learning_rate"}

    def decides(trial: Any) -> nn.Module:
        if trial.suggest_categorical("batch_size", [8, 16]) == 16:
            trial.suggest_float("rate", 1e-3, 1e-2)
        return nn.Linear(1, 1)

    for define, message in (
        (sometimes, "'learning_rate' in some calls only"),
        (decides, "'rate' only for .* 'batch_size'"),
    ):
        with pytest.raises(SlimsearchError, match=message):
            space_of(define).choices  # noqa: B018


def test_names_of_functions_and_classes() -> None:
    assert space_of(f"{DEFINED}:small").choices == space_of(defined.small).choices
    assert space_of("tests.defined:OfChoices").size == 4
    assert isinstance(space_of(f"{SPACES}:Tiny"), NniSpace)
    for wrong in (f"{SPACES}:NotASpace", f"{DEFINED}:no_space"):
        with pytest.raises(
            SlimsearchError, match="is not a space of networks, which is an NNI ModelSpace class, a fun"
        ):
            space_of(wrong)


def test_layers_that_a_choice_affects() -> None:
    layers = space_of(defined.nested).affected_layers()
    assert layers["rate"] == ["2"]  # the dropout behind a convolution and its activation
    assert layers["width0"] == ["0", "4"]  # the convolution, and the last layer
    assert space_of(defined.of_choices).affected_layers()["act"] == ["1"]


@pytest.mark.parametrize("recipes", [None, '{"training": {"learning_rate": [0.5], "warm_up": [0.1, 0.2]}}'])
def test_training_hyperparameters_of_the_space_take_precedence(recipes: str | None, digits: Dataset) -> None:
    configuration = Configuration(space="lenet", search_hyperparameters=True, co_search=recipes)
    found = recipe_choices(configuration, digits, {"learning_rate": [0.001, 0.002]})
    assert found is not None
    assert found.content["training"]["learning_rate"] == [0.001, 0.002]
    assert len(found.content["training"]["warm_up"]) > 1


def test_lazy_layers_have_their_sizes() -> None:
    def define(trial: Any, num_classes: int) -> nn.Module:
        width = trial.suggest_categorical("width", [4, 8])
        return nn.Sequential(
            nn.LazyConv2d(width, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes)
        )  # fmt: skip

    space = ModelSpace.load(define, (3, 8, 6), 5)
    one, other = space.build({"width": 8}), space.build({"width": 8})
    assert one.training
    assert not one[1].running_mean.any()  # the zeros are not in its statistics
    assert one[3].weight.shape == (5, 8 * 6 * 4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert space.affected_layers()["width"]
