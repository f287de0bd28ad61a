"""What each of the samplers that need no model does with its history, and what BANANAS knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace
from slimsearch.strategies.samplers import History, Observation, Sampler, load_sampler
from slimsearch.strategies.samplers._dominance import crowding, standings
from slimsearch.strategies.samplers._sampler import nearest_untried
from slimsearch.strategies.samplers.local_search import LocalSearch
from slimsearch.strategies.samplers.pareto_mutation import ParetoMutation
from slimsearch.strategies.samplers.regularized_evolution import RegularizedEvolution

ONE = (Objective("val_accuracy", "maximize"),)
TWO = (*ONE, Objective("params", "minimize"))


@pytest.fixture
def space() -> ChoiceSpace:
    """1,024 points, each with 15 neighbours."""
    return ChoiceSpace({label: [0, 1, 2, 3] for label in "abcde"})


def point(text: str) -> dict[str, int]:
    return {label: int(value) for label, value in zip("abcde", text, strict=True)}


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> int:
    return sum(one[label] != other[label] for label in one)


def propose(sampler: Sampler, space: ChoiceSpace, history: History, seed: int = 0) -> dict[str, int]:
    objectives = TWO if any(len(o.losses or ()) == 2 for o in history.observations) else ONE
    return dict(sampler.propose(space, objectives, history, np.random.default_rng(seed)))


def test_the_grid_is_walked_once(space: ChoiceSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    grid = space.grid

    def counted() -> Iterator[dict[str, int]]:
        nonlocal steps
        for found in grid():
            steps += 1
            yield found

    monkeypatch.setattr(space, "grid", counted)
    history = History([Observation(point("00002"))])
    found = []
    for _ in range(100):
        found.append(propose(load_sampler("grid"), space, history))
        history.add(Observation(found[-1], running=True))
    assert found[:4] == [point("00000"), point("00001"), point("00003"), point("00010")]
    assert steps == 101
    history.memo.clear()
    assert propose(load_sampler("grid"), space, history) == point("01211")


def test_evolution_forgets_the_old(space: ChoiceSpace) -> None:
    """Parents are the better ones of the latest, though the old were better still."""
    latest = [p for p in space.grid() if set(p.values()) <= {2, 3}][: RegularizedEvolution.POPULATION]
    history = History(
        [
            *(Observation(p, (0.0,)) for p in space.grid() if set(p.values()) <= {0, 1}),
            *(Observation(p, (5.0 - Counter(p.values())[3],)) for p in latest),
        ]
    )
    threes = []
    for seed in range(10):
        counts = Counter(propose(RegularizedEvolution(), space, history, seed).values())
        assert counts[2] + counts[3] >= 4
        threes.append(counts[3])
    assert np.mean(threes) > 2.5


def test_pareto_mutation_changes_one_choice_then_two(space: ChoiceSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParetoMutation, "EXPLORATION", 0.0)
    monkeypatch.setattr(ParetoMutation, "FEW", 1)
    best = point("11111")
    around = list(space.neighbours(best))
    history = History([Observation(best, (-9.0,)), *(Observation(p, (0.0,)) for p in around[:12])])
    for p in around[12:]:
        found = propose(ParetoMutation(), space, history)
        assert found in around[12:]
        history.add(Observation(p if history.tried(found) else found))
    assert all(history.tried(p) for p in around)
    for seed in range(5):
        assert distance(propose(ParetoMutation(), space, history, seed), best) == 2


def test_pareto_mutation_uses_the_whole_front(space: ChoiceSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParetoMutation, "EXPLORATION", 0.0)
    front = {"00000": (0.0, 2.0), "33333": (2.0, 0.0), "00333": (1.0, 1.0)}
    rest = [p for p in space.grid() if p["b"] == 2][:20]
    history = History(
        [
            *(Observation(p, (3.0, 3.0)) for p in rest),
            *(Observation(point(text), losses) for text, losses in front.items()),
            Observation(point("12121"), (-1.0, -1.0), violation=0.5),
        ]
    )
    nearest = Counter(
        min([*front, "12121"], key=lambda text: distance(point(text), found))
        for found in (propose(ParetoMutation(), space, history, seed) for seed in range(30))
    )
    assert set(nearest) == set(front)


def test_a_trial_that_ends_twice_is_taken_as_it_is_now(space: ChoiceSpace) -> None:
    """As where a trial that was stopped early is continued."""
    rng = np.random.default_rng(0)
    for sampler in (ParetoMutation(), LocalSearch()):
        for objectives in (1, 2):
            points = [space.sample(rng) for _ in range(30)]
            history = History(Observation(p, tuple(rng.random(objectives))) for p in points)
            propose(sampler, space, history)
            for seed in range(10):
                best = min(range(30), key=lambda i: history.observations[i].losses or ())
                history.change(best, Observation(points[best], tuple(1 + rng.random(objectives))))
                fresh = History(history.observations)
                assert propose(sampler, space, history, seed) == propose(sampler, space, fresh, seed)


def test_local_search_climbs_and_starts_again(space: ChoiceSpace) -> None:
    """Moves to the first better neighbour, and leaves an optimum when all its neighbours were tried."""
    start, better = point("11111"), point("11113")
    rest = [p for p in space.grid() if distance(p, start) >= 4][:4]
    history = History([Observation(start, (5.0,)), *(Observation(p, (9.0,)) for p in rest)])
    assert distance(propose(LocalSearch(), space, history), start) == 1
    history.add(Observation(point("11110"), (6.0,)))
    assert distance(propose(LocalSearch(), space, history), start) == 1
    history.add(Observation(better, (4.0,)))
    around = [p for p in space.neighbours(better) if not history.tried(p)]
    for _ in around:
        found = propose(LocalSearch(), space, history)
        assert found in around
        history.add(Observation(found, None if found["a"] == 0 else (7.0,)))
    # All around the optimum was tried, one of them in vain: a new climb, from whatever comes.
    drawn = [propose(LocalSearch(), space, history, seed) for seed in range(8)]
    assert max(distance(p, better) for p in drawn) > 2
    history.add(Observation(point("33330"), (8.0,)))
    assert distance(propose(LocalSearch(), space, history), point("33330")) == 1


def test_local_search_goes_on_while_a_trial_is_running(space: ChoiceSpace) -> None:
    start = point("11111")
    history = History([Observation(point("00000"), (9.0,)), Observation(start, running=True)])
    for p in list(space.neighbours(point("00000")))[:5]:
        history.add(Observation(p, (10.0,)))
    assert distance(propose(LocalSearch(), space, history), point("00000")) == 1
    history.change(1, Observation(start, (0.0,)))
    assert distance(propose(LocalSearch(), space, history), start) == 1


def test_local_search_keeps_a_front(space: ChoiceSpace) -> None:
    front = [point("00000"), point("33333")]
    history = History([Observation(front[0], (0.0, 1.0)), Observation(front[1], (1.0, 0.0))])
    for p in [p for p in space.grid() if all(distance(p, f) >= 3 for f in front)][:6]:
        history.add(Observation(p, (2.0, 2.0)))
    found = [propose(LocalSearch(), space, history, seed) for seed in range(12)]
    nearest = [min(range(2), key=lambda i: distance(f, front[i])) for f in found]
    assert set(nearest) == {0, 1}
    assert all(distance(f, front[i]) == 1 for f, i in zip(found, nearest, strict=True))


def test_standings_put_limits_first_then_the_front_then_its_ends() -> None:
    losses = [(0.0, 4.0), (1.0, 1.0), (1.2, 0.9), (4.0, 0.0), (5.0, 5.0), (-1.0, -1.0), (-2.0, -2.0)]
    observations = [Observation({"a": i}, loss) for i, loss in enumerate(losses)]
    observations[5:] = [
        Observation({"a": 5}, losses[5], violation=2.0),
        Observation({"a": 6}, losses[6], violation=1.0),
    ]
    keys = standings(observations)
    order = sorted(range(7), key=lambda i: keys[i])
    assert set(order[:2]) == {0, 3}
    assert order[4:] == [4, 6, 5]
    assert crowding(np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]]))[1] == pytest.approx(2.0)


def test_neighbours_in_random_order_are_all_neighbours(space: ChoiceSpace, rng: np.random.Generator) -> None:
    found = list(space.shuffled_neighbours(point("01230"), rng))
    assert sorted(map(str, found)) == sorted(map(str, space.neighbours(point("01230"))))
    assert found != list(space.neighbours(point("01230")))


def test_the_nearest_untried_point_is_few_changes_away(space: ChoiceSpace, rng: np.random.Generator) -> None:
    centre = point("22222")
    history = History(Observation(p) for p in space.grid() if distance(p, centre) <= 2)
    assert distance(nearest_untried(space, history, centre, rng), centre) == 3
    everything = History(Observation(p) for p in space.grid())
    assert nearest_untried(space, everything, centre, rng) == centre
