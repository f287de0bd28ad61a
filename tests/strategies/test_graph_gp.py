"""What the Gaussian process over graphs is told of a point, and what it proposes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from torch import nn

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import ChoiceSpace, Edge, FixedModel, Graph, JointSpace, Point, RecipeSpace, Space
from slimsearch.strategies.samplers import History, Observation
from slimsearch.strategies.samplers._surrogate import pool as _pool
from slimsearch.strategies.samplers._surrogate.costs import Costs, fit_costs, predicted_costs
from slimsearch.strategies.samplers._surrogate.encoding import Encoder
from slimsearch.strategies.samplers._surrogate.gaussian_process import Vectors
from slimsearch.strategies.samplers._surrogate.training_paths import TrainingPaths
from slimsearch.strategies.samplers.graph_gp import GraphGp

OPERATIONS = ["none", "skip_connect", "conv", "pool"]
EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
LABELS = [f"{s}{t}" for s, t in EDGES]
ONE = (Objective("val_accuracy", "maximize"),)
TWO = (*ONE, Objective("params", "minimize"))


def graph(point: Point) -> Graph:
    return Graph(tuple(Edge(s, t, point[f"{s}{t}"], f"{s}{t}") for s, t in EDGES), 3)


def known(point: Point) -> Mapping[str, float]:
    return {"params": float(Counter(point[label] for label in LABELS)["conv"] * point.get("width", 1))}


def accuracy(point: Point) -> float:
    """A long way of convolutions is good, pooling is bad, a cell that gives nothing is useless."""
    paths = graph(point).paths()
    if not paths:
        return 0.1
    depth = max(path.count("conv") for path in paths)
    pools = sum(path.count("pool") * count for path, count in paths.items())
    return 0.5 + 0.1 * depth - 0.02 * pools + 0.005 * point.get("width", 0)


def cell(text: str) -> dict[str, str]:
    """One letter for each edge."""
    return {label: next(o for o in OPERATIONS if o[0] == letter) for label, letter in zip(LABELS, text, strict=True)}


@pytest.fixture
def cells() -> ChoiceSpace:
    """4,096 cells of four tensors."""
    return ChoiceSpace(dict.fromkeys(LABELS, OPERATIONS), known=known, graph=graph)


@pytest.fixture
def wide_cells() -> ChoiceSpace:
    """49,152: too many to list."""
    widths = list(range(1, 13))
    return ChoiceSpace({**dict.fromkeys(LABELS, OPERATIONS), "width": widths}, known=known, graph=graph)


def observed(space: ChoiceSpace, point: Point, objectives: int = 2) -> Observation:
    return Observation(point, (-accuracy(point), space.known(point)["params"])[:objectives])


def propose(space: Space, history: History, seed: int, objectives: int = 2) -> Point:
    return GraphGp().propose(space, TWO[:objectives], history, np.random.default_rng(seed))


def views(space: Any, *points: Point) -> list[list[np.ndarray[Any, Any]]]:
    encoder = Encoder(space)
    return [list(view.blocks) for view in encoder.views(np.array([encoder.position(point) for point in points]))]


def features(space: Any, *points: Point) -> list[np.ndarray[Any, Any]]:
    """Those of the graph, if there is one."""
    return views(space, *points)[0]


def test_dead_edges_change_no_feature(cells: ChoiceSpace) -> None:
    """Edges in order: 01, 02, 03, 12, 13, 23."""
    no_way_out = [cell(text) for text in ("cnnncn", "cpnncn", "cnnpcn", "csnccn")]
    no_way_in = [cell(text) for text in ("cnnncn", "cnnncp", "cnnncc")]
    for points in (no_way_out, no_way_in):
        assert all((block == block[0]).all() for block in features(cells, *points))
    alive = features(cells, cell("cnnncn"), cell("scnncp"))
    assert all((block[0] != block[1]).any() for block in alive)


def test_what_ignores_the_graph_tells_dead_edges_apart(cells: ChoiceSpace) -> None:
    _, (choices,) = views(cells, cell("cnnncn"), cell("cpnncn"))
    assert choices.sum(axis=1).tolist() == [6, 6]
    assert (choices[0] != choices[1]).any()
    # Without a graph there is nothing else.
    assert len(views(ChoiceSpace({"op": OPERATIONS}), {"op": "conv"})) == 1


def test_cells_that_compute_the_same_have_equal_counts(cells: ChoiceSpace) -> None:
    """The same branches through other tensors, and an identity before or after an operation."""
    _, *counts = features(cells, cell("cpnnpc"), cell("pcnncp"))
    assert all(np.array_equal(block[0], block[1]) for block in counts)
    _, _, paths, lengths = features(cells, cell("cnnnsn"), cell("snnncn"), cell("nncnnn"), cell("snnsnc"))
    assert (paths == paths[0]).all()
    assert (lengths == lengths[0]).all()


def test_cells_as_deep_as_each_other_have_equal_lengths_of_paths(cells: ChoiceSpace) -> None:
    _, _, paths, lengths = features(cells, cell("cnnnpn"), cell("pnnnpn"), cell("cncnpn"), cell("nncnnn"))
    assert (paths[0] != paths[1]).any()
    assert np.array_equal(lengths[0], lengths[1])
    assert all((lengths[0] != other).any() for other in lengths[2:])


def test_more_of_the_same_is_another_count(cells: ChoiceSpace) -> None:
    _, _, paths, _ = features(cells, cell("nncnnn"), cell("cncnsn"))
    assert paths[:, paths.any(axis=0)].ravel() == pytest.approx([1.0, np.sqrt(2)])


def test_choices_beside_the_cell_count(wide_cells: ChoiceSpace) -> None:
    dead, other = {**cell("cnnncn"), "width": 1}, {**cell("cpnncn"), "width": 1}
    flat, places, *_ = features(wide_cells, dead, other, {**dead, "width": 2}, {**dead, "width": 12})
    assert np.array_equal(flat[0], flat[1])
    assert (flat[0] != flat[2]).any()
    # Also by their order.
    assert places.ravel() == pytest.approx([0, 0, 1 / 11, 1])


def test_edges_without_a_choice_and_choices_of_several_edges() -> None:
    def fixed(point: Point) -> Graph:
        edges = (Edge(0, 1, "conv", None), Edge(1, 2, point["op"], "op"), Edge(2, 3, point["op"], "op"))
        return Graph((*edges, Edge(1, 3, "pool", None)), 3)

    points = [{"op": operation} for operation in ("conv", "none", "pool")]
    flat, operations, paths, _ = features(ChoiceSpace({"op": OPERATIONS}, graph=fixed), *points)
    assert flat.sum(axis=1).tolist() == [1, 0, 1]
    # What every cell has tells none apart.
    assert operations.sum(axis=1).tolist() == [2, 0, 2]
    assert (paths > 0).sum(axis=1).tolist() == [2, 1, 2]


class Conditional(ChoiceSpace):
    """A kernel is only where there is a convolution."""

    def canonical(self, point: Point) -> dict[str, Any]:
        found = super().canonical(self.complete(point))
        return found if found["op"] == "conv" else {"op": found["op"]}


def test_inactive_choices_change_no_feature() -> None:
    space = Conditional({"op": OPERATIONS, "kernel": [3, 5, 7]})
    flat, places = features(space, *(space.canonical({"op": "pool", "kernel": kernel}) for kernel in (3, 5, 7)))
    assert (flat == flat[0]).all()
    assert not places.any()
    flat, places = features(space, {"op": "conv", "kernel": 3}, {"op": "conv", "kernel": 7}, {"op": "pool"})
    assert flat.sum(axis=1).tolist() == [2, 2, 1]
    assert places.ravel().tolist() == [0, 1, 0]


def test_vectors_stay_as_more_are_kept(cells: ChoiceSpace, rng: np.random.Generator) -> None:
    """Also where the arrays grow, in both directions."""
    points = [cells.sample(rng) for _ in range(300)]
    encoder = Encoder(cells)
    first = encoder.position(points[0])
    before = [block[0][block[0] != 0].copy() for block in encoder.views(np.array([first]))[0].blocks]
    positions = np.array([encoder.position(point) for point in points])
    for block, expected, width in zip(encoder.views(positions)[0].blocks, before, (24, None, None, None), strict=True):
        assert block[0][block[0] != 0].tolist() == expected.tolist()
        assert len(block) == 300
        assert width is None or block.shape[1] == width
    assert encoder.position(points[0]) == first
    assert encoder.point(first) == points[0]


def needed(space: ChoiceSpace, losses: Mapping[str, float], seed: int, enough: float) -> int:
    """Number of trials until one is good enough; 60 if none is."""
    history = History()
    for number in range(60):
        point = propose(space, history, 100 * seed + number, objectives=1)
        loss = losses["".join(point[label][0] for label in LABELS)]
        history.add(Observation(point, (loss,)))
        if loss <= enough:
            return number + 1
    return 60


def test_a_graph_that_explains_nothing_costs_little(cells: ChoiceSpace) -> None:
    """Where each operation counts by its position, dead or alive."""
    random = np.random.default_rng(3)
    worth = {label: dict(zip(OPERATIONS, random.normal(size=4), strict=True)) for label in LABELS}
    pairs = {label: random.normal(size=(4, 4)) for label in LABELS}
    points = list(cells.grid())
    losses = {}
    for point in points:
        at = [OPERATIONS.index(point[label]) for label in LABELS]
        value = sum(worth[label][point[label]] for label in LABELS)
        value += 0.3 * sum(
            pairs[label][one, other] for label, one, other in zip(LABELS, at, at[1:] + at[:1], strict=True)
        )
        losses["".join(point[label][0] for label in LABELS)] = -value
    enough = sorted(losses.values())[4]
    plain = ChoiceSpace(dict.fromkeys(LABELS, OPERATIONS))
    with_graph, without = ([needed(space, losses, seed, enough) for seed in range(5)] for space in (cells, plain))
    assert np.median(with_graph) <= np.median(without) + 10


def test_finds_both_ends_of_a_front_with_known_costs(cells: ChoiceSpace) -> None:
    everything = list(cells.grid())
    free = max(accuracy(p) for p in everything if cells.known(p)["params"] == 0)
    best = max(accuracy(p) for p in everything)
    found = []
    for seed in range(3):
        history = History()
        for number in range(40):
            history.add(observed(cells, propose(cells, history, 100 * seed + number)))
        points = [o.point for o in history.observations]
        cheap = max((accuracy(p) for p in points if cells.known(p)["params"] == 0), default=0.0)
        found.append(cheap == free and max(map(accuracy, points)) == best)
    assert sum(found) >= 2


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("listed", [True, False])
def test_what_is_kept_changes_nothing(
    listed: bool, objectives: int, wide_cells: ChoiceSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a space that is listed, and in one from which points are drawn."""
    monkeypatch.setattr(_pool, "_DRAWN", 200)
    small = {label: OPERATIONS if label in ("01", "03", "13") else ["none"] for label in LABELS}
    narrow = ChoiceSpace({**small, "width": [1, 2, 3]}, known=known, graph=graph)
    space = narrow if listed else wide_cells
    kept, dropped = History(), History()
    for number in range(30):
        dropped.memo.clear()
        points = [propose(space, history, number, objectives) for history in (kept, dropped)]
        assert points[0] == points[1]
        for history in (kept, dropped):
            history.add(observed(space, points[0], objectives))


def test_ten_thousand_trials(wide_cells: ChoiceSpace, rng: np.random.Generator) -> None:
    history = History(observed(wide_cells, wide_cells.sample(rng)) for _ in range(10_000))
    point = propose(wide_cells, history, 0)
    assert wide_cells.contains(point)
    assert not history.tried(point)


def test_proposals_take_one_thread() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    during: list[set[int]] = []

    def known_here(point: Point) -> Mapping[str, float]:
        during.append(threads())
        return known(point)

    space, history = ChoiceSpace(dict.fromkeys(LABELS, OPERATIONS[2:]), known=known_here, graph=graph), History()
    for number in range(GraphGp.STARTUP):
        history.add(observed(space, space.sample(np.random.default_rng(number))))
    during.clear()
    with threadpool_limits(2, user_api="blas"):
        propose(space, history, 0)
        assert threads() == {2}
    assert set().union(*during) == {1}


@pytest.mark.parametrize("kind", ["sum", "product", "almost free"])
def test_costs_that_are_not_known_are_predicted(kind: str, rng: np.random.Generator) -> None:
    choices = rng.integers(4, size=(360, 6))
    added = rng.exponential(size=(6, 4))
    costs = 1 + added[np.arange(6), choices].sum(axis=1)
    if kind == "product":
        costs = np.exp(costs)
    if kind == "almost free":
        costs[:2] = 1e-6
    vectors = np.eye(4)[choices].reshape(len(choices), -1)
    trials, others = [Vectors([vectors[:60]])], [Vectors([vectors[60:]])]
    predicted = predicted_costs(fit_costs(trials, costs[:60]), trials, costs[:60], others)
    true = costs[60:]
    assert np.median(np.abs(predicted.expected - true) / true) < 0.15
    bounds = np.quantile(true, [0.1, 0.3, 0.5, 0.8])
    within = predicted.within(bounds)
    assert (np.diff(within, axis=1) >= 0).all()
    assert within.mean(axis=0) == pytest.approx([0.1, 0.3, 0.5, 0.8], abs=0.12)
    # Costs that are known keep a bound or do not.
    assert np.array_equal(Costs(true).within(bounds), true[:, None] <= bounds)


def test_running_points_are_not_proposed(cells: ChoiceSpace, rng: np.random.Generator) -> None:
    history = History(observed(cells, cells.sample(rng)) for _ in range(12))
    for _ in range(12):
        # The same seed each time: only what is running tells the proposals apart.
        point = propose(cells, history, 0)
        assert not history.tried(point)
        history.add(Observation(point, running=True))


def test_a_point_comes_where_all_were_tried() -> None:
    space = ChoiceSpace({"op": OPERATIONS, "width": [1, 2, 3]})
    history = History(Observation(p, (float(i), 1.0)) for i, p in enumerate(space.grid()))
    for objectives in (1, 2):
        losses = [Observation(o.point, o.losses[:objectives] if o.losses else None) for o in history.observations]
        assert space.contains(propose(space, History(losses), 0, objectives))


RECIPES = {
    "prune": {"use": [True, False], "sparsity": [0.25, 0.5, 0.75]},
    "store": {"use": [True, False], "bits": [8, 4, 2]},
}


def steps(recipe: Any) -> list[tuple[Any, float]]:
    """To prune takes a training, to store takes none."""
    return [({stage: options}, float(stage == "prune")) for stage, options in recipe.items()]


def joint() -> JointSpace:
    architectures = ChoiceSpace({"width": list(range(1, 9)), "depth": [1, 2, 3, 4], "kind": ["a", "b", "c"]})
    return JointSpace(architectures, RecipeSpace(RECIPES), steps)


def compressed(point: Point) -> tuple[float, float]:
    """Negative accuracy and size; the best kind before compression bears it worst."""
    sparsity = point.get("prune.sparsity", 0.0)
    bits = point.get("store.bits", 32)
    size = point["width"] ** 2 * point["depth"] * (1 - sparsity) * bits / 32
    hurt = {"a": 0.1, "b": 0.02, "c": 0.03}[point["kind"]]
    accuracy = 1 - 0.5 / (1 + point["width"] * point["depth"]) + {"a": 0.03, "b": 0.02, "c": 0.0}[point["kind"]]
    return -(accuracy - hurt * (sparsity**2 + (0.3 if bits == 4 else 1.5 if bits == 2 else 0.0))), size


def observed_on_the_way(point: Point) -> Observation:
    """With the losses of what was trained, before anything is only stored."""
    stops = [network.point for network in joint().lineage(point)]
    curve = {epoch: compressed(network)[0] for epoch, network in enumerate(stops, start=1) if network is not None}
    return Observation(point, compressed(point), curve=curve)


def searched(seed: int, trainings: float) -> History:
    """A search with so many trainings, each trial costing a quarter of one besides.

    As in a run, recipes without training follow the trial that trained their network.
    """
    space, history, done, spent = joint(), History(), set[str](), 0.0
    while spent < trainings:
        point = GraphGp().propose(space, TWO, history, np.random.default_rng([seed, len(history.observations)]))
        for each in [point, *space.derived_points(point)]:
            if not history.tried(each):
                lineage = space.lineage(each)
                spent += 0.25 + sum(network.trainings for network in lineage if network.name not in done)
                done |= {network.name for network in lineage}
                history.add(observed_on_the_way(each))
    return history


def test_new_networks_go_on_being_tried() -> None:
    for seed in range(3):
        history = searched(seed, 60)
        latest = history.observations[len(history.observations) // 2 :]
        before = {joint().lineage(o.point)[0].name for o in history.observations[: -len(latest)]}
        assert len({joint().lineage(o.point)[0].name for o in latest} - before) >= 5


def test_new_networks_are_tried_as_they_are_trained_before_anything_is_done_to_them() -> None:
    history = searched(0, 40)
    known: set[str] = set()
    for observation in history.observations:
        network, recipe = joint().lineage(observation.point)[0].name, joint().candidate(observation.point).recipe
        assert network in known or recipe == {}
        assert len(known) >= GraphGp.NETWORKS or "prune" not in recipe
        known.add(network)
    assert any("prune" in joint().candidate(o.point).recipe for o in history.observations[:30])


def test_the_first_recipe_with_training_is_drawn_for_a_network_on_the_front() -> None:
    space, plain = joint(), {"prune.use": False, "store.use": False}
    points = [space.canonical({"width": width, "depth": 2, "kind": "a", **plain}) for width in (2, 4, 8)]
    losses = [(-0.9, 1.0), (-0.5, 2.0), (-0.95, 3.0)]  # the second one is dominated
    history = History(Observation(point, each) for point, each in zip(points, losses, strict=True))
    first = [space.candidate(propose(space, history, seed)) for seed in range(20)]
    assert all("prune" in candidate.recipe for candidate in first)
    assert {candidate.architecture["width"] for candidate in first} == {2, 8}
    assert {candidate.recipe["prune"]["sparsity"] for candidate in first} == {0.25, 0.5, 0.75}
    # One that was ruled out or failed is not followed by another one that is drawn.
    history.add(Observation(space.point(first[0]), violation=1.0))

    class Undrawn(GraphGp):
        RECIPES = 0

    for seed in range(3):
        expected = Undrawn().propose(space, TWO, history, np.random.default_rng(seed))
        assert GraphGp().propose(space, TWO, history, np.random.default_rng(seed)) == expected


def test_networks_that_cannot_be_had_as_they_are_trained() -> None:
    always = RecipeSpace({"prune": {"sparsity": [0.25, 0.5, 0.75]}})
    space, history = JointSpace(joint().architectures, always, steps), History()
    for number in range(20):
        point = propose(space, history, number)
        assert space.contains(point)
        history.add(Observation(point, compressed(point)))
    # What broke a limit as it was trained is not proposed so again.
    space, history = joint(), History()
    for number in range(30):
        point = propose(space, history, number)
        plain = space.candidate(point).recipe == {} and number >= GraphGp.NETWORKS
        assert not history.tried(point)
        history.add(Observation(point, violation=1.0) if plain else Observation(point, compressed(point)))


def test_limits_that_only_compressed_networks_keep() -> None:
    space, history, broken = joint(), History(), 0
    for number in range(60):
        point = propose(space, history, number)
        _, size = losses = compressed(point)
        excess = max(0.0, size / 10 - 1) if "store" in space.candidate(point).recipe else 1.0
        history.add(Observation(point, violation=excess) if excess else Observation(point, losses))
        broken += number >= 30 and excess > 0
    assert history.finished_count >= 30
    assert broken <= 10


def test_what_was_passed_is_learned_from() -> None:
    """Networks that were pruned too much, of which all that is known is how they were before it."""
    space = joint()
    ruined = {"prune.use": True, "prune.sparsity": 0.75, "store.use": False}
    points = [{"width": w, "depth": d, "kind": k, **ruined} for w in (2, 8) for d in (1, 4) for k in ("a", "b", "c")]
    plain = {"prune.use": False, "store.use": False}
    history = History()
    for point in points:
        passed, size = compressed(space.canonical({**point, **plain}))
        history.add(Observation(space.canonical(point), (-0.1, size), curve={2: passed, 4: -0.1}, epochs=2))
    encoder = Encoder(space)
    paths = TrainingPaths(encoder, history.observations, np.array([encoder.position(p) for p in points]))
    assert {tuple(sorted(encoder.point(position).items())): loss for position, loss in paths.passed} == {
        tuple(sorted(space.canonical({**point, **plain}).items())): compressed(space.canonical({**point, **plain}))[0]
        for point in points
    }
    # To take one of those as it was, or to store it, costs next to nothing.
    for seed in range(5):
        chosen = propose(space, history, seed)
        assert "prune" not in space.candidate(chosen).recipe
        assert list(paths.left(np.array([encoder.position(chosen)]))) == [0.0]


def test_what_is_kept_of_work_changes_nothing() -> None:
    kept, dropped, space = History(), History(), joint()
    for number in range(25):
        dropped.memo.clear()
        points = [propose(space, history, number) for history in (kept, dropped)]
        assert points[0] == points[1]
        for history in (kept, dropped):
            history.add(Observation(points[0], compressed(points[0])))


def test_what_depends_on_the_file_is_not_taken_for_known() -> None:
    """A score of accuracy and size: the same network stored otherwise has another one."""
    space, history = joint(), History()
    for number in range(12):
        point = space.sample(np.random.default_rng(number))
        history.add(Observation(point, (sum(compressed(point)),)))
    encoder = Encoder(space)
    positions = np.array([encoder.position(o.point) for o in history.observations])
    paths = TrainingPaths(encoder, history.observations, positions)
    assert paths.passed == []
    assert all(paths.last(int(position)) is None for position in positions)
    assert space.contains(propose(space, history, 0, objectives=1))


def test_recipes_for_a_given_network_begin_with_what_is_trained() -> None:
    """Without number formats, which need no training and follow each trained network."""
    space = JointSpace(FixedModel(nn.Identity, (3, 8, 8), 10), RecipeSpace(RECIPES), steps)
    given = space.reference()
    assert given is not None
    history = History()
    history.add(Observation(given, (-0.9, 64.0)))
    found = [
        space.candidate(GraphGp().propose(space, TWO, history, np.random.default_rng(seed))).recipe
        for seed in range(20)
    ]
    assert all("store" not in recipe for recipe in found if "prune" in recipe)
    assert len({recipe["prune"]["sparsity"] for recipe in found if "prune" in recipe}) > 1
