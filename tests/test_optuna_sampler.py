"""`slimsearch.GraphGPSampler` in studies of plain Optuna."""

from __future__ import annotations

import pickle
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import slimsearch
from slimsearch.search_spaces import ChoiceSpace

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE: dict[str, Any] = {
    "kind": CategoricalDistribution(("a", "b", None, 2.5)),
    "width": IntDistribution(8, 64, step=8),
    "rate": FloatDistribution(0.0, 0.5, step=0.1),
}
BEST = {"kind": "b", "width": 40, "rate": 0.3}


def ask(trial: optuna.Trial) -> tuple[Any, int, float]:
    kind = trial.suggest_categorical("kind", ["a", "b", None, 2.5])
    return kind, trial.suggest_int("width", 8, 64, step=8), trial.suggest_float("rate", 0.0, 0.5, step=0.1)


def one(trial: optuna.Trial) -> float:
    kind, width, rate = ask(trial)
    return (kind != "b") + (width - 40) ** 2 / 900 + 4 * (rate - 0.3) ** 2


def two(trial: optuna.Trial) -> tuple[float, float]:
    kind, width, rate = ask(trial)
    return width / 64 + (kind == "b") * 0.2 - rate, width * (1 + rate)


def proposals(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_it_finds_the_best_of_192_points_in_32_trials() -> None:
    for seed in range(3):
        study = optuna.create_study(sampler=slimsearch.GraphGPSampler(SPACE, seed=seed))
        study.optimize(one, n_trials=32)
        assert study.best_params == pytest.approx(BEST)
        assert len({str(point) for point in proposals(study)}) == 32, "no point twice"


def test_two_objectives_in_both_directions() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=slimsearch.GraphGPSampler(SPACE, seed=0))
    study.optimize(two, n_trials=40)
    everything = [
        (width / 64 + (kind == "b") * 0.2 - rate / 10, width * (1 + rate / 10))
        for kind in ("a", "b") for width in range(8, 65, 8) for rate in range(6)
    ]  # fmt: skip
    front = {
        point
        for point in everything
        if not any(o[0] >= point[0] and o[1] <= point[1] and o != point for o in everything)
    }
    found = {tuple(round(v, 6) for v in trial.values) for trial in study.best_trials}
    assert len(found & {tuple(round(v, 6) for v in point) for point in front}) >= len(front) - 1


def test_a_proposal_follows_from_the_record() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(sampler=slimsearch.GraphGPSampler(SPACE, seed=5), storage=storage, study_name="whole")
    study.optimize(one, n_trials=24)
    other = optuna.create_study(sampler=slimsearch.GraphGPSampler(SPACE, seed=5))
    for trial in study.trials[:15]:
        other.add_trial(trial)
    sampler = pickle.loads(pickle.dumps(other.sampler))
    other.sampler = sampler
    other.optimize(one, n_trials=9)
    assert proposals(other) == proposals(study)


def test_several_trials_at_once_differ() -> None:
    study = optuna.create_study(sampler=slimsearch.GraphGPSampler(SPACE, seed=1))
    study.optimize(one, n_trials=30, n_jobs=3)
    asked = [study.ask() for _ in range(4)]
    for trial in asked:
        ask(trial)
    assert len({str(trial.params) for trial in (*study.trials, *asked)}) == 30 + 4


def test_failed_pruned_infinite_and_enqueued_trials() -> None:
    def objective(trial: optuna.Trial) -> float:
        value = one(trial)
        if trial.number % 5 == 1:
            raise optuna.TrialPruned
        if trial.number % 5 == 2:
            raise ValueError("no result")
        return float("inf") if trial.number % 5 == 3 else value

    study = optuna.create_study(sampler=slimsearch.GraphGPSampler(SPACE, seed=2))
    study.enqueue_trial(BEST)
    study.optimize(objective, n_trials=40, catch=(ValueError,))
    assert study.trials[0].params == BEST
    assert study.best_value == pytest.approx(0.0)


def test_labels_asked_for_sometimes_or_never_in_the_space() -> None:
    def objective(trial: optuna.Trial) -> float:
        deep = trial.suggest_categorical("deep", [True, False])
        width = trial.suggest_int("width", 1, 8) if deep else 4
        return trial.suggest_float("other", 0, 1) * 0.01 + abs(width - 6)

    study = optuna.create_study(
        sampler=slimsearch.GraphGPSampler({"deep": [True, False], "width": range(1, 9)}, seed=0)
    )
    study.optimize(objective, n_trials=9)  # eight networks with a width, and one without
    assert {(trial.params["deep"], trial.params.get("width")) for trial in study.trials} == {
        (False, None),
        *((True, width) for width in range(1, 9)),
    }


def test_costs_known_beforehand() -> None:
    space = ChoiceSpace(
        {"width": [8, 16, 32, 64], "depth": [1, 2, 3, 4]},
        known=lambda point: {"params": float(point["width"] ** 2 * point["depth"])},
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=slimsearch.GraphGPSampler(space, seed=0))
    study.set_metric_names(["accuracy", "params"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        width = trial.suggest_categorical("width", [8, 16, 32, 64])
        depth = trial.suggest_int("depth", 1, 4)
        return 1 - 1 / (width * depth), float(width**2 * depth)

    study.optimize(objective, n_trials=20)
    assert len(study.trials) == 20
    assert len({str(trial.params) for trial in study.trials}) == 16, "every point is tried once before one is repeated"


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ({"rate": FloatDistribution(0, 1)}, "rate"),
        ({"width": IntDistribution(1, 100_000)}, "width"),
        ({"kind": ["a", "a"]}, "kind"),
        ({"kind": "text"}, "kind"),
        ({}, "no choices"),
    ],
)
def test_spaces_that_cannot_be_searched(space: dict[str, Any], name: str) -> None:
    with pytest.raises(slimsearch.SlimsearchError, match=name):
        slimsearch.GraphGPSampler(space)


def test_a_suggestion_that_excludes_the_value() -> None:
    study = optuna.create_study(sampler=slimsearch.GraphGPSampler({"width": [100, 200]}))
    with pytest.raises(slimsearch.SlimsearchError, match="width"):
        study.optimize(lambda trial: trial.suggest_int("width", 1, 10), n_trials=1)
