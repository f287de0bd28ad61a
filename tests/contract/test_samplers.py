"""Laws of every sampler: inside the space, nothing twice, a function of its arguments, one objective and several."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from slimsearch.evaluators import Objective
from slimsearch.names import built_in_names
from slimsearch.search_spaces import ChoiceSpace, Edge, Graph, ModelSpace, Space
from slimsearch.strategies.samplers import History, Observation, Sampler, load_sampler
from tests.conftest import ROOT, SPACES, environment

OURS = built_in_names("slimsearch.strategies.samplers")
NAMES = [*OURS, "optuna.samplers:QMCSampler"]
OPTIMISERS = [name for name in OURS if name not in ("random", "grid", "quasi_random")]
# Optuna's GP takes tenths of a second for each proposal.
SLOW = ("gp",)
# Tens of milliseconds; learns from few trials.
SHORT = (*SLOW, "bananas")
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


@pytest.fixture(scope="module")
def mnist_cnn() -> ModelSpace:
    """18 networks."""
    return ModelSpace.load("mnist_cnn", (1, 28, 28), 10)


@pytest.fixture(scope="module")
def cell() -> ChoiceSpace:
    """Cells of two paths whose size is known before they are evaluated, with a choice beside them."""
    operations = ["none", "skip_connect", "conv_1x1", "conv_3x3"]
    edges = ((0, 1), (1, 2), (0, 2))
    labels = [f"edge{source}{target}" for source, target in edges]

    def graph(point: Mapping[str, str]) -> Graph:
        return Graph(tuple(Edge(s, t, point[label], label) for (s, t), label in zip(edges, labels, strict=True)), 2)

    def known(point: Mapping[str, str]) -> Mapping[str, float]:
        return {"size_kib": float(sum({"conv_1x1": 1, "conv_3x3": 9}.get(point[label], 0) for label in labels))}

    return ChoiceSpace({**dict.fromkeys(labels, operations), "width": [8, 16, 32]}, known=known, graph=graph)


def past(space: Space, objectives: int, length: int, seed: int = 0) -> History:
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
        if name in OURS:
            assert nested.canonical(point) == point


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


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("count", OBJECTIVES)
def test_what_is_kept_in_the_memo_changes_nothing(name: str, count: str, cell: ChoiceSpace) -> None:
    """Trials that run side by side, end in any order, fail and break limits."""
    sampler, objectives, history = load_sampler(name), OBJECTIVES[count], History()
    rng = np.random.default_rng(1)
    weights = rng.normal(size=len(cell.encode({})))
    running: list[int] = []
    for number in range(14 if name in SLOW else 60):
        proposals = [
            sampler.propose(cell, objectives, h, np.random.default_rng(number))
            for h in (history, History(history.observations))
        ]
        assert proposals[0] == proposals[1]
        history.add(Observation(proposals[0], running=True))
        running.append(number)
        if len(running) == 3:
            position = running.pop(int(rng.integers(3)))
            point = history.observations[position].point
            losses = (float(cell.encode(point) @ weights), cell.known(point)["size_kib"])[: len(objectives)]
            failed, violation = rng.random() < 0.1, float(rng.random() < 0.1)
            history.change(position, Observation(point, None if failed else losses, violation))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("count", OBJECTIVES)
def test_nothing_is_tried_twice_while_anything_is_left(name: str, count: str, mnist_cnn: ModelSpace) -> None:
    sampler, objectives, history = load_sampler(name), OBJECTIVES[count], History()
    weights = np.random.default_rng(2).normal(size=(len(mnist_cnn.encode({})), 2))
    for number in range(18):
        point = sampler.propose(mnist_cnn, objectives, history, np.random.default_rng([0, number]))
        assert not history.tried(point)
        losses = tuple(float(v) for v in mnist_cnn.encode(point) @ weights)[: len(objectives)]
        history.add(Observation(point, losses))
    assert mnist_cnn.contains(sampler.propose(mnist_cnn, objectives, history, np.random.default_rng(0)))


@pytest.mark.parametrize("name", OURS)
def test_running_and_failed_trials_are_not_proposed_again(name: str, mnist_cnn: ModelSpace) -> None:
    """Of 18 points one is left, and it is found."""
    points = list(mnist_cnn.grid())
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(18)
        left, *others = (points[i] for i in order)
        history = History(Observation(p, (float(i),) if i < 11 else None, running=i > 14) for i, p in enumerate(others))
        found = load_sampler(name).propose(mnist_cnn, OBJECTIVES["one"], history, np.random.default_rng(seed))
        assert found == left


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in OPTIMISERS])
@pytest.mark.parametrize("count", OBJECTIVES)
def test_trials_that_break_limits_are_not_followed(name: str, count: str, lenet: ModelSpace) -> None:
    """Networks with tanh have the best losses and break a limit: few proposals have it."""
    sampler, objectives = load_sampler(name), OBJECTIVES[count]
    rng = np.random.default_rng(3)
    history = History()
    for _ in range(60):
        point = lenet.sample(rng)
        losses = (float(lenet.encode(point)[1:].sum() + rng.random()), float(rng.random()))[: len(objectives)]
        if point["activation"] == "tanh":
            history.add(Observation(point, tuple(loss - 50 for loss in losses), violation=2.0))
        else:
            history.add(Observation(point, losses))
    proposals = [
        sampler.propose(lenet, objectives, history, np.random.default_rng(seed))
        for seed in range(6 if name in SLOW else 12)
    ]
    assert np.mean([p["activation"] == "tanh" for p in proposals]) < 0.5


@pytest.mark.parametrize("name", OURS)
def test_nothing_finished_or_nothing_within_limits(name: str, lenet: ModelSpace) -> None:
    """Forty failures, and forty trials of which all break a limit."""
    rng = np.random.default_rng(4)
    points = [lenet.sample(rng) for _ in range(40)]
    failed = History(Observation(p) for p in points)
    violating = History(Observation(p, (float(i), 1.0), violation=1.0 + i) for i, p in enumerate(points))
    for history in (failed, violating):
        point = load_sampler(name).propose(lenet, OBJECTIVES["several"], history, np.random.default_rng(0))
        assert lenet.contains(point)
        assert not history.tried(point)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_better_than_random(name: str, lenet: ModelSpace) -> None:
    """On a smooth, single objective, the best of 60 (or 30) proposals beats random's in most of a few seeds."""
    weights = np.random.default_rng(5).normal(size=len(lenet.encode({})))
    objectives = OBJECTIVES["one"]

    def best(sampler: Sampler, seed: int) -> float:
        history = History()
        for number in range(60 if name not in SHORT else 30):
            point = sampler.propose(lenet, objectives, history, np.random.default_rng([seed, number]))
            history.add(Observation(point, (float(lenet.encode(point) @ weights),)))
        return min(o.losses[0] for o in history.finished if o.losses)

    seeds = range(5 if name not in SHORT else 3)
    wins = sum(best(load_sampler(name), seed) <= best(load_sampler("random"), seed) for seed in seeds)
    assert wins > len(seeds) / 2
