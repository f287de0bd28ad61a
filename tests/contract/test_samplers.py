"""Laws of every sampler: inside the space, a function of its arguments, for one objective and for several."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from evaluators import Objective
from search_spaces import Candidate, ModelSpace
from slimsearch_names import built_in_names
from strategies.samplers import History, Observation, Sampler, load_sampler
from tests.conftest import ROOT, SPACES, environment

NAMES = [*built_in_names("strategies.samplers"), "optuna.samplers:QMCSampler"]
OBJECTIVES = {
    "one": (Objective("val_accuracy", "maximize"),),
    "several": (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")),
}


@pytest.fixture(scope="module")
def lenet() -> ModelSpace:
    return ModelSpace.load("lenet", (1, 28, 28), 10)


@pytest.fixture(scope="module")
def nested() -> ModelSpace:
    return ModelSpace.load(f"{SPACES}:Nested", (1, 8, 8), 10)


def past(space: ModelSpace, objectives: int, length: int, seed: int = 0) -> History:
    """A history with finished, infeasible, failed and running trials."""
    rng = np.random.default_rng(seed)
    observations = []
    for i in range(length):
        point = space.sample(rng)
        if i % 7 == 6:
            observations.append(Observation(point, running=i > length - 4))
            continue
        values = tuple(float(v) for v in space.encode(point) @ rng.random((len(space.encode(point)), objectives)))
        observations.append(Observation(point, values, violation=1.0 if i % 5 == 4 else 0.0))
    return History(tuple(observations))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", OBJECTIVES)
@pytest.mark.parametrize("length", [0, 5, 30, 61])
def test_proposals_are_inside_and_repeat(name: str, count: str, length: int, lenet: ModelSpace) -> None:
    objectives = OBJECTIVES[count]
    history = past(lenet, len(objectives), length)
    one, other = load_sampler(name), load_sampler(name)
    for seed in range(2):
        # The second sampler has seen nothing; the first one has made a proposal before.
        proposals = [s.propose(lenet, objectives, history, np.random.default_rng(seed)) for s in (one, one, other)]
        assert all(lenet.contains(p) for p in proposals)
        assert proposals[0] == proposals[1] == proposals[2]


@pytest.mark.parametrize("name", NAMES)
def test_spaces_with_inactive_choices(name: str, nested: ModelSpace) -> None:
    sampler = load_sampler(name)
    for length in (3, 40):
        history = past(nested, 2, length)
        point = sampler.propose(nested, OBJECTIVES["several"], history, np.random.default_rng(0))
        assert nested.contains(nested.canonical(point))


def test_the_same_in_another_process(lenet: ModelSpace) -> None:
    def proposals() -> list[dict[str, object]]:
        history = past(lenet, 2, 40)
        return [
            dict(load_sampler(name).propose(lenet, OBJECTIVES["several"], history, np.random.default_rng(1)))
            for name in NAMES
        ]

    program = (
        "import json, sys\n"
        "from tests.contract.test_samplers import *\n"
        "space = ModelSpace.load('lenet', (1, 28, 28), 10)\n"
        "history = past(space, 2, 40)\n"
        "print(json.dumps([dict(load_sampler(n).propose(space, OBJECTIVES['several'], history,"
        " np.random.default_rng(1))) for n in NAMES]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout.splitlines()[-1]) == proposals()


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp"])
def test_better_than_random(name: str, lenet: ModelSpace) -> None:
    """On a smooth, single objective, the best of 60 proposals beats random's in most of five seeds."""
    weights = np.random.default_rng(5).normal(size=len(lenet.encode({})))
    objectives = OBJECTIVES["one"]

    def best(sampler: Sampler, seed: int) -> float:
        observations: list[Observation] = []
        tried: set[Candidate] = set()
        for number in range(60 if name != "gp" else 25):
            rng = np.random.default_rng([seed, number])
            for _ in range(10):
                point = lenet.canonical(sampler.propose(lenet, objectives, History(tuple(observations)), rng))
                if Candidate(point) not in tried:
                    break
            tried.add(Candidate(point))
            observations.append(Observation(point, (float(lenet.encode(point) @ weights),)))
        return min(o.losses[0] for o in observations if o.losses)

    seeds = range(5 if name != "gp" else 3)
    wins = sum(best(load_sampler(name), seed) <= best(load_sampler("random"), seed) for seed in seeds)
    assert wins > len(seeds) / 2
