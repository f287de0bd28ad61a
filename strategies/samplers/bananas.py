"""BANANAS: an ensemble of predictors over a path encoding, with Thompson sampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import NormalDist
from typing import Any

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.evaluators.objective import losses as losses_of
from slimsearch.search_spaces import Candidate, Point, Space
from slimsearch.strategies.samplers._dominance import standings
from slimsearch.strategies.samplers._sampler import History, Observation, new_point

Array = np.ndarray[Any, np.dtype[np.float64]]
Features = np.ndarray[Any, np.dtype[np.float32]]

# Maximum numbers of cached encodings, and of columns for paths: large cells have thousands of paths.
_MAX_CACHED, _MAX_PATHS = 20_000, 256


class Bananas:
    """The best among random points and neighbors of the best trials, by draws from an ensemble's predictions.

    Points are encoded by the counts of operation paths through the cell, if the space describes one, and one-hot in all
    other choices. For each candidate a loss is drawn from a normal distribution with the predictors' mean and standard
    deviation (independent Thompson sampling). Losses are ranks mapped to normal quantiles, so that networks that failed
    to train do not compress the differences between the others.

    With several objectives, each is predicted separately, unless the space knows it before evaluation. They are
    combined by an augmented Tchebycheff norm whose weights are drawn for each proposal (ParEGO, Knowles 2006). A
    candidate with the features of a trial and no lower costs is excluded. Once a trial has broken a limit, violations
    are predicted too.

    Source: White et al. 2021, "BANANAS: Bayesian optimization with neural architectures for neural architecture
    search". Differences: forests of extremely randomized trees (Geurts et al. 2006) in place of neural networks, fitted
    again for each proposal; counts of paths without identities in place of their presence.
    """

    STARTUP = 10
    PREDICTORS = 5
    TREES = 8
    """Number of trees of each predictor."""
    PARENTS = 10
    NEIGHBOURS = 30
    """Maximum number of neighbors of each parent; also the number of random and of twice mutated candidates."""
    MOST = 500
    """Maximum number of trials that the predictors learn from: half the best, half the latest."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if history.finished_count < self.STARTUP:
            return new_point(space, history, lambda: space.sample(rng), rng)
        trials = self._instructive(history.finished)
        pool = self._pool(space, history, self._parents(trials, rng), rng)
        if not pool:
            return new_point(space, history, lambda: space.sample(rng), rng)
        encoder = _Encoder(space, history)
        features, pool_features = encoder.features([o.point for o in trials], pool)

        losses = np.array([o.losses for o in trials], dtype=float)  # (trials, objectives)
        metrics = [space.known(point) for point in pool]
        exact = np.array([all(o.metric in m for m in metrics) for o in objectives])
        costs = losses_of([o for o, e in zip(objectives, exact, strict=True) if e], metrics)  # (pool, exact)
        if exact.any():
            remaining = _not_covered(pool_features, costs, features, losses[:, exact])
            pool, pool_features, costs = [pool[i] for i in remaining], pool_features[remaining], costs[remaining]

        violations = np.array([o.violation for o in trials])
        targets = [_normal_scores(losses[:, c], losses[:, c]) for c in np.flatnonzero(~exact)]
        if violations.any():
            targets.append(np.where(violations > 0, 1 + violations / violations.max(), 0.0))
        drawn = self._drawn(features, targets, pool_features, rng)  # (pool, targets)

        scores = np.zeros((len(pool), len(objectives)))
        for column, exact_column in enumerate(np.flatnonzero(exact)):
            scores[:, exact_column] = _normal_scores(losses[:, exact_column], costs[:, column])
        scores[:, ~exact] = drawn[:, : int((~exact).sum())]
        weighted = scores * rng.dirichlet(np.ones(len(objectives)))
        joined = weighted.max(axis=1) + 0.05 * weighted.sum(axis=1)
        if violations.any():
            joined += 10 * np.maximum(drawn[:, -1] - 0.5, 0.0)
        return pool[int(np.argmin(joined))]

    def _instructive(self, finished: Sequence[Observation]) -> Sequence[Observation]:
        if len(finished) <= self.MOST:
            return finished
        half = self.MOST // 2
        older, latest = finished[:-half], finished[-half:]
        keys = standings(older)
        best = sorted(range(len(older)), key=lambda i: keys[i])[:half]
        return [*(older[i] for i in best), *latest]

    def _parents(self, trials: Sequence[Observation], rng: np.random.Generator) -> list[Point]:
        """The best trials, or a random sample of the front if that is larger."""
        keys = standings(trials)
        order = sorted(range(len(trials)), key=lambda i: keys[i])
        front = sum(key[:2] == keys[order[0]][:2] for key in keys)
        chosen = rng.permutation(order[: max(front, self.PARENTS)])[: self.PARENTS]
        return [trials[i].point for i in chosen]

    def _pool(
        self, space: Space, history: History, parents: Sequence[Point], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Untried candidates without duplicates."""
        drawn = [p for parent in parents for p in islice(space.shuffled_neighbours(parent, rng), self.NEIGHBOURS)]
        for _ in range(self.NEIGHBOURS):
            drawn.append(space.mutate(space.mutate(parents[int(rng.integers(len(parents)))], rng), rng))
            drawn.append(space.sample(rng))
        return list({Candidate(p).key: p for p in drawn if not history.tried(p)}.values())

    def _drawn(
        self, features: Features, targets: Sequence[Array], pool_features: Features, rng: np.random.Generator
    ) -> Array:
        """(pool, targets) values drawn from the predictions."""
        if not targets:
            return np.zeros((len(pool_features), 0))
        from sklearn.tree import ExtraTreeRegressor

        answers = np.stack(targets, axis=1)
        predictions = np.zeros((self.PREDICTORS, len(pool_features), len(targets)))
        for predictor in range(self.PREDICTORS):
            for _ in range(self.TREES):
                # Single trees: the overhead of scikit-learn's forests is longer than this training.
                tree = ExtraTreeRegressor(max_features=0.3, random_state=int(rng.integers(2**31)))
                tree.fit(features, answers, check_input=False)
                found = tree.predict(pool_features, check_input=False).reshape(len(pool_features), len(targets))
                predictions[predictor] += found / self.TREES
        spread = rng.normal(size=predictions.shape[1:]) * predictions.std(axis=0)
        return np.asarray(predictions.mean(axis=0) + spread)


class _Encoder:
    """Feature vectors of points; encodings of single points are cached in the history's memo."""

    def __init__(self, space: Space, history: History) -> None:
        self._space = space
        memo = history.memo.get("bananas")
        if memo is None or memo[0] is not space or len(memo[1]) > _MAX_CACHED:
            memo = history.memo["bananas"] = (space, {})
        self._cache: dict[str, tuple[Array, Counter[tuple[str, ...]]]] = memo[1]

    def features(self, points: Sequence[Point], others: Sequence[Point]) -> tuple[Features, Features]:
        """(len(points), F) and (len(others), F), without columns that are constant over `points`."""
        encoded = [self._encoded(p) for p in points]
        totals: Counter[tuple[str, ...]] = Counter()
        for _, paths in encoded:
            totals.update(paths)
        frequent = sorted(totals, key=lambda path: (-totals[path], path))[:_MAX_PATHS]
        columns = {path: column for column, path in enumerate(frequent)}
        rows = _rows(encoded, columns)
        varies = (rows != rows[0]).any(axis=0)
        varies[0] |= not varies.any()  # a predictor needs a column
        return rows[:, varies], _rows([self._encoded(p) for p in others], columns)[:, varies]

    def _encoded(self, point: Point) -> tuple[Array, Counter[tuple[str, ...]]]:
        key = Candidate(point).key
        if key not in self._cache:
            graph = self._space.graph(point)
            flat = self._space.encode(point)
            if graph is None:
                self._cache[key] = flat, Counter()
            else:
                described = {edge.label for edge in graph.edges}
                in_graph = [np.full(len(c.values), c.label in described) for c in self._space.choices]
                self._cache[key] = np.where(np.concatenate(in_graph), 0.0, flat), graph.paths()
        return self._cache[key]


def _rows(encoded: Sequence[tuple[Array, Counter[tuple[str, ...]]]], columns: Mapping[Any, int]) -> Features:
    width = len(encoded[0][0]) if encoded else 0
    rows = np.zeros((len(encoded), width + len(columns)), dtype=np.float32)
    for row, (flat, paths) in zip(rows, encoded, strict=True):
        row[:width] = flat
        for path, count in paths.items():
            if path in columns:
                row[width + columns[path]] = count
    return rows


def _normal_scores(losses: Array, values: Array) -> Array:
    """Map `values` to the normal quantiles of their ranks among `losses`, shifted so that the least loss is 0."""
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((i + 0.5) / len(losses)) for i in range(len(losses))])
    return np.asarray(np.interp(values, np.sort(losses), quantiles - quantiles[0]))


def _not_covered(pool_features: Features, costs: Array, features: Features, tried_costs: Array) -> list[int]:
    """Positions of candidates for which no trial has the same features and no higher costs; all if there are none."""
    matched: dict[bytes, list[Array]] = {}
    for row, cost in zip(features, tried_costs, strict=True):
        matched.setdefault(row.tobytes(), []).append(cost)
    remaining = [
        i
        for i, (row, cost) in enumerate(zip(pool_features, costs, strict=True))
        if not any((tried <= cost).all() for tried in matched.get(row.tobytes(), ()))
    ]
    return remaining or list(range(len(pool_features)))
