"""Laws of samplers: a proposal is in the space, and a function of the arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, Edge, Graph, ModelSpace, Point, Space
from slimsearch.strategies.samplers import History, Observation, Sampler, load_sampler
from slimsearch.testing._contract import Contract, in_another_process

OBJECTIVES = {
    "one": (Objective("val_accuracy", "maximize"),),
    "several": (Objective("val_accuracy", "maximize"), Objective("size_kib", "minimize")),
}


class Conditional(ChoiceSpace):
    """``kernel`` is active only where ``branch`` is "conv"."""

    def __init__(self) -> None:
        super().__init__({"branch": ["conv", "skip"], "depth": [1, 2], "kernel": [1, 3], "inputs": [[0, 1], [0, 2]]})

    def canonical(self, point: Point) -> dict[str, Any]:
        active = point.get("branch") == "conv"
        whole = super().canonical(point if active else {**point, "kernel": 1})
        return {label: value for label, value in whole.items() if active or label != "kernel"}


@functools.cache
def _networks(name: str) -> ModelSpace:
    return ModelSpace.load(name, (1, 28, 28), 10)


@functools.cache
def _cell() -> ChoiceSpace:
    """Cells with two paths and a width, whose size is known before evaluation."""
    operations = ["none", "skip_connect", "conv_1x1", "conv_3x3"]
    edges = ((0, 1), (1, 2), (0, 2))
    labels = [f"edge{source}{target}" for source, target in edges]

    def graph(point: Point) -> Graph:
        return Graph(tuple(Edge(s, t, point[label], label) for (s, t), label in zip(edges, labels, strict=True)), 2)

    def known(point: Point) -> Mapping[str, float]:
        return {"size_kib": float(sum({"conv_1x1": 1, "conv_3x3": 9}.get(point[label], 0) for label in labels))}

    return ChoiceSpace({**dict.fromkeys(labels, operations), "width": [8, 16, 32]}, known=known, graph=graph)


def history_of(space: Space, objectives: int, length: int) -> History:
    """A history with finished, infeasible, failed and running trials."""
    rng = np.random.default_rng(0)
    observations = []
    for i in range(length):
        point = space.sample(rng)
        if i % 7 == 6:
            observations.append(Observation(point, running=i > length - 4))
            continue
        values = tuple(float(v) for v in space.encode(point) @ rng.random((len(space.encode(point)), objectives)))
        observations.append(Observation(point, values, violation=1.0 if i % 5 == 4 else 0.0))
    return History(tuple(observations))


def _new(sampler: str | Callable[[], Sampler]) -> Sampler:
    return load_sampler(sampler) if isinstance(sampler, str) else sampler()


def _proposal(sampler: str | Callable[[], Sampler], seed: int) -> dict[str, Any]:
    space = _networks("lenet")
    rng = np.random.default_rng(seed)
    return dict(_new(sampler).propose(space, OBJECTIVES["several"], history_of(space, 2, 40), rng))


class SamplerContract(Contract):
    """Laws of every sampler.

    Attributes:
        sampler: a value of ``--sampler``, a class, or a function that returns a sampler; or a list of these.
        trials: length of histories; fewer for a slow sampler.
    """

    subject = "sampler"
    sampler: Any
    trials: ClassVar[int] = 60

    @pytest.fixture
    def new_sampler(self, sampler: str | Callable[[], Sampler]) -> Callable[[], Sampler]:
        """Constructs the sampler."""
        return functools.partial(_new, sampler)

    @pytest.fixture
    def networks(self) -> ModelSpace:
        """A large space of networks."""
        return _networks("lenet")

    @pytest.fixture
    def few_networks(self) -> ModelSpace:
        """18 networks."""
        return _networks("mnist_cnn")

    @pytest.fixture
    def conditional(self) -> Space:
        """A space in which a choice is inactive in some points."""
        return Conditional()

    @pytest.mark.parametrize("count", OBJECTIVES)
    @pytest.mark.parametrize("length", [0, 5, 30, 61])
    def test_proposals_are_inside_and_repeat(
        self, new_sampler: Callable[[], Sampler], count: str, length: int, networks: ModelSpace
    ) -> None:
        objectives = OBJECTIVES[count]
        history = history_of(networks, len(objectives), length)
        one, other = new_sampler(), new_sampler()
        for seed in range(2):
            # The first sampler proposes twice; the second one has no state yet.
            proposals = [
                s.propose(networks, objectives, history, np.random.default_rng(seed)) for s in (one, one, other)
            ]
            assert all(networks.contains(p) for p in proposals)
            assert proposals[0] == proposals[1] == proposals[2]

    def test_conditional_choices(self, new_sampler: Callable[[], Sampler], conditional: Space) -> None:
        sampler = new_sampler()
        for length in (3, 40):
            history = history_of(conditional, 2, length)
            point = sampler.propose(conditional, OBJECTIVES["several"], history, np.random.default_rng(0))
            assert conditional.contains(conditional.canonical(point))

    def test_the_same_in_another_process(self, sampler: str | Callable[[], Sampler]) -> None:
        assert in_another_process(_proposal, sampler, 1) == _proposal(sampler, 1)

    @pytest.mark.parametrize("count", OBJECTIVES)
    def test_the_memo_changes_nothing(self, new_sampler: Callable[[], Sampler], count: str) -> None:
        """Parallel trials end in any order, fail and break limits."""
        cell = _cell()
        sampler, objectives, history = new_sampler(), OBJECTIVES[count], History()
        rng = np.random.default_rng(1)
        weights = rng.normal(size=len(cell.encode({})))
        running: list[int] = []
        for number in range(self.trials):
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

    def test_nothing_finished_or_nothing_feasible(
        self, new_sampler: Callable[[], Sampler], networks: ModelSpace
    ) -> None:
        for history in _without_feasible(networks):
            point = new_sampler().propose(networks, OBJECTIVES["several"], history, np.random.default_rng(0))
            assert networks.contains(networks.canonical(point))


def _without_feasible(space: Space) -> tuple[History, History]:
    """Forty failures, and forty trials that all break a limit."""
    rng = np.random.default_rng(4)
    points = [space.sample(rng) for _ in range(40)]
    failed = History(Observation(p) for p in points)
    violating = History(Observation(p, (float(i), 1.0), violation=1.0 + i) for i, p in enumerate(points))
    return failed, violating


class UntriedSamplerContract(SamplerContract):
    """Laws of samplers that propose canonical points, and none twice while an untried one is left."""

    def test_proposals_are_canonical(self, new_sampler: Callable[[], Sampler], conditional: Space) -> None:
        for length in (3, 40):
            history = history_of(conditional, 2, length)
            point = new_sampler().propose(conditional, OBJECTIVES["several"], history, np.random.default_rng(0))
            assert conditional.canonical(point) == point

    def test_untried_where_nothing_is_feasible(self, new_sampler: Callable[[], Sampler], networks: ModelSpace) -> None:
        for history in _without_feasible(networks):
            point = new_sampler().propose(networks, OBJECTIVES["several"], history, np.random.default_rng(0))
            assert not history.tried(point)

    @pytest.mark.parametrize("count", OBJECTIVES)
    def test_nothing_twice_while_anything_is_left(
        self, new_sampler: Callable[[], Sampler], count: str, few_networks: ModelSpace
    ) -> None:
        sampler, objectives, history = new_sampler(), OBJECTIVES[count], History()
        weights = np.random.default_rng(2).normal(size=(len(few_networks.encode({})), 2))
        for number in range(18):
            point = sampler.propose(few_networks, objectives, history, np.random.default_rng([0, number]))
            assert not history.tried(point)
            losses = tuple(float(v) for v in few_networks.encode(point) @ weights)[: len(objectives)]
            history.add(Observation(point, losses))
        assert few_networks.contains(sampler.propose(few_networks, objectives, history, np.random.default_rng(0)))

    def test_running_and_failed_trials_are_not_proposed_again(
        self, new_sampler: Callable[[], Sampler], few_networks: ModelSpace
    ) -> None:
        """The last untried point of 18 is found."""
        points = list(few_networks.grid())
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(18)
            left, *others = (points[i] for i in order)
            history = History(
                Observation(p, (float(i),) if i < 11 else None, running=i > 14) for i, p in enumerate(others)
            )
            found = new_sampler().propose(few_networks, OBJECTIVES["one"], history, np.random.default_rng(seed))
            assert found == left


class LearningSamplerContract(UntriedSamplerContract):
    """Laws of samplers that learn from finished trials.

    Attributes:
        proposals: number of proposals, of which less than half may break a limit that earlier trials broke.
        searched: trials of a search that is compared with random search.
        searches: number of these searches, of which most must be at least as good as random search.
    """

    proposals: ClassVar[int] = 12
    searched: ClassVar[int] = 60
    searches: ClassVar[int] = 5

    @pytest.mark.parametrize("count", OBJECTIVES)
    def test_infeasible_trials_are_not_followed(
        self, new_sampler: Callable[[], Sampler], count: str, networks: ModelSpace
    ) -> None:
        """Networks with tanh have the best losses but break a limit: few proposals have tanh."""
        sampler, objectives = new_sampler(), OBJECTIVES[count]
        rng = np.random.default_rng(3)
        history = History()
        for _ in range(60):
            point = networks.sample(rng)
            losses = (float(networks.encode(point)[1:].sum() + rng.random()), float(rng.random()))[: len(objectives)]
            if point["activation"] == "tanh":
                history.add(Observation(point, tuple(loss - 50 for loss in losses), violation=2.0))
            else:
                history.add(Observation(point, losses))
        proposals = [
            sampler.propose(networks, objectives, history, np.random.default_rng(seed))
            for seed in range(self.proposals)
        ]
        assert np.mean([p["activation"] == "tanh" for p in proposals]) < 0.5

    def test_better_than_random(self, new_sampler: Callable[[], Sampler], networks: ModelSpace) -> None:
        """On a smooth objective, the best proposal is at least as good as that of random search for most seeds."""
        weights = np.random.default_rng(5).normal(size=len(networks.encode({})))
        objectives = OBJECTIVES["one"]

        def best(sampler: Sampler, seed: int) -> float:
            history = History()
            for number in range(self.searched):
                point = sampler.propose(networks, objectives, history, np.random.default_rng([seed, number]))
                history.add(Observation(point, (float(networks.encode(point) @ weights),)))
            return min(o.losses[0] for o in history.finished if o.losses)

        wins = sum(best(new_sampler(), seed) <= best(load_sampler("random"), seed) for seed in range(self.searches))
        assert wins > self.searches / 2
