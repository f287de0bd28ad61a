"""Bayesian optimization with Gaussian processes over features of the network's graph, and known or predicted costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from slimsearch.evaluators import Objective
from slimsearch.search_spaces import Point, Space
from slimsearch.strategies.samplers._dominance import covers
from slimsearch.strategies.samplers._sampler import History, Observation, new_point
from slimsearch.strategies.samplers._surrogate.costs import (
    Costs,
    additive,
    fit_costs,
    predicted_costs,
)
from slimsearch.strategies.samplers._surrogate.encoding import Encoder, Positions
from slimsearch.strategies.samplers._surrogate.gaussian_process import (
    Array,
    Fitted,
    Mixture,
    Views,
    expected_improvement,
    fit_mixture,
)
from slimsearch.strategies.samplers._surrogate.pool import Pool
from slimsearch.strategies.samplers._surrogate.training_paths import SCORING, TrainingPaths

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# The kernel is refitted to at most _FIT_ON trials when the number of trials has grown by a tenth.
_REFIT, _FIT_ON = 1.1, 128
# Maximum number of trials that the process is conditioned on: the best, and the latest.
_MOST = 300
# _BOUNDS bounds on costs are drawn, from the least cost to _BEYOND times the range up to the next costlier network.
_BEYOND, _BOUNDS = 1.1, 16
# A new network is first tried uncompressed if the probability that it is feasible is above _LIKELY.
_LIKELY = 0.5
# Maximum number of trials while the first recipe with training is drawn at random: a space may have none.
_EARLY = 100
# Maximum number of relatives of a network that are looked at for a recipe with training.
_RELATED = 100
# The standard deviation of an almost known loss, as a share of that of all losses.
_KNOWN = 0.01

FittedT = TypeVar("FittedT")


class GraphGp:
    """Expected improvement under Gaussian processes over features of the network's graph and over its choices.

    If the space describes a graph, a process over its features and one over the plain choices are weighted by how well
    each predicts left-out trials, so that features that do not help fade out. Below, the process is this mixture.

    With several objectives, each proposal draws random bounds on all costs and maximizes the sum of the expected
    improvements over the best loss within each. With many bounds this approaches the expected hypervolume improvement
    on ranks; with few it explores more. The process predicts the first objective that the space does not know
    (`Space.known`). Costs that the space knows are exact. Other unknown objectives are costs with a probability to keep
    each bound, predicted by a linear model of the choices and a process over its residuals, on their own scale and on
    that of their logarithms. Targets of the first process are ranks mapped to normal quantiles, so that networks that
    failed to train do not compress the differences between the others.

    Once a trial has broken a limit, or was ruled out by one before training, a second process learns the violations,
    and the gain is multiplied by the probability of feasibility.

    If networks are trained as ancestors of others (`Space.lineage`), the gain is divided by the remaining work, so that
    candidates that follow from a trained network without training are tried at once. The process also learns from
    intermediate networks, at least a quarter of the work goes to new networks, and a new network is tried uncompressed
    first. After the first networks, one of them is trained with a random recipe.

    Source: expected improvement of Jones et al. 1998, bounds on all objectives but one of Haimes et al. 1971,
    improvement per cost of Snoek et al. 2012, limits of Schonlau et al. 1998, features of a cell's function after
    White et al. 2021 (BANANAS), see `Encoder`; weights of Geisser and Eddy 1979, see `fit_mixture`.
    """

    STARTUP = 10
    """Number of random points at the beginning, for spaces without lineage."""
    NETWORKS = 3
    """Number of random networks at the beginning, for spaces with lineage."""
    RECIPES = 1
    """Number of networks on the front that are then trained with a random recipe each."""

    def propose(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        if self._starts(space, history):
            return new_point(space, history, lambda: self._first(space, history, rng), rng)
        recipe = self._first_recipe(space, history, rng)
        if recipe is not None:
            return recipe
        # More threads do not speed up matrices of this size, and take the cores of the workers.
        with _linear_algebra().limit(limits=1, user_api="blas"):
            return self._learned(space, objectives, history, rng)

    def _learned(
        self, space: Space, objectives: Sequence[Objective], history: History, rng: np.random.Generator
    ) -> Point:
        memo: _Memo | None = history.memo.get("graph_gp")
        if memo is None:
            encoder = Encoder(space)
            memo = history.memo["graph_gp"] = _Memo(encoder, Pool(space, encoder))
        position = _Proposal(objectives, history, rng, memo).best()
        if position is None:
            return new_point(space, history, lambda: space.sample(rng), rng)
        return memo.encoder.point(position)

    def keeps_limits(self, space: Space, history: History) -> bool:
        """True once there are enough trials to learn from."""
        return not self._starts(space, history)

    def _starts(self, space: Space, history: History) -> bool:
        """Whether there are too few finished trials and trained networks to learn from."""
        done: dict[str, float] = {}
        for observation in history.finished:
            lineage = space.lineage(observation.point)
            if not lineage:
                return history.finished_count < self.STARTUP
            done |= {ancestor.name: ancestor.trainings for ancestor in lineage}
            if sum(done.values()) >= self.NETWORKS:
                return False
        return True

    def _first(self, space: Space, history: History, rng: np.random.Generator) -> Point:
        """A random point, or the first network trained for it; the point more often as more trials are ruled out."""
        point = space.sample(rng)
        first = next((ancestor for ancestor in space.lineage(point) if ancestor.trainings > 0), None)
        if first is None or first.point is None:
            return point
        broken = sum(o.violation > 0 and o.losses is None for o in history.observations)
        return point if rng.random() * (history.finished_count + broken) < broken else first.point

    def _first_recipe(self, space: Space, history: History, rng: np.random.Generator) -> Point | None:
        """A random recipe with training for a network on the front that has had none; None after enough of them.

        Without data about recipes, the process would explore one that is far from none, often too strong a pruning.
        """
        if len(history.observations) > _EARLY:
            return None
        networks, compressed = list[Observation](), set[str]()
        for observation in history.observations:
            lineage = space.lineage(observation.point)
            if len(lineage) > 1:
                compressed.add(lineage[0].name)
            elif len(lineage) == 1 and observation.losses is not None:
                networks.append(observation)
        if len(compressed) >= self.RECIPES:
            return None
        front = [
            one
            for one in networks
            if space.lineage(one.point)[0].name not in compressed
            and not any(covers(other, one) and not covers(one, other) for other in networks)
        ]
        if not front:
            return None
        chosen = front[int(rng.integers(len(front)))]
        related = islice(space.related_points(chosen.point, rng), _RELATED)
        return next((point for point in related if len(space.lineage(point)) > 1 and not history.tried(point)), None)


@cache
def _linear_algebra() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  it has a library of its own, which must be loaded by now
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@dataclass
class _Memo:
    encoder: Encoder
    pool: Pool
    fits: dict[object, Any] = field(default_factory=dict)


class _Proposal:
    """One proposal: the known losses, the candidates, and the best of them."""

    def __init__(
        self, objectives: Sequence[Objective], history: History, rng: np.random.Generator, memo: _Memo
    ) -> None:
        self._objectives, self._history, self._rng, self._memo = objectives, history, rng, memo
        observations = history.observations
        tried = memo.pool.tried(history)
        done = [i for i, o in enumerate(observations) if o.losses is not None]
        self._positions = tried[done]
        judged = [i for i, o in enumerate(observations) if o.losses is not None or o.violation > 0]
        self._judged, self._excess = tried[judged], np.array([observations[i].violation for i in judged])
        self._running = tried[[i for i, o in enumerate(observations) if o.running]]
        self._losses = np.array([observations[i].losses for i in done], dtype=float)  # (N, objectives)
        violations = np.array([observations[i].violation for i in done])
        self._feasible = violations <= 0
        if not self._feasible.any():
            self._feasible[:] = True
        # Infeasible trials are worse than all feasible ones, ordered by violation.
        worst, span = self._losses.max(axis=0), np.ptp(self._losses, axis=0) + 1e-9
        penalty = worst + span * (1 + violations / (violations.max() + 1e-9))[:, None]
        self._targets = np.where(self._feasible[:, None], self._losses, penalty)
        self._conditioned = self._conditioning()
        self._paths = TrainingPaths(memo.encoder, observations, tried) if memo.encoder.lineage(int(tried[0])) else None
        passed = self._paths.passed if self._paths is not None else []
        self._passed = np.array([position for position, _ in passed], dtype=np.int64)
        self._passed_losses = np.array([loss for _, loss in passed], dtype=float)

    def best(self) -> int | None:
        """The position with the highest expected gain per work, or of the first network of its lineage.

        Returns:
            None if there is no candidate.
        """
        candidates = self._memo.pool.draw(self._history, self._leaders(), self._rng)
        if not len(candidates):
            return None
        if self._paths is not None:
            candidates = self._paths.due(candidates)
        views = self._memo.encoder.views(candidates)
        known = set(self._memo.encoder.known(int(candidates[0])))
        learned = next((i for i, o in enumerate(self._objectives) if o.metric not in known), 0)
        process = self._process(learned)
        mean, deviation = process.predict(views)
        work = np.ones(len(candidates))
        if self._paths is not None:
            remaining = self._paths.left(candidates)
            work = SCORING + remaining
            if learned == 0:
                self._use_known_losses(self._paths, process, mean, deviation, candidates, remaining == 0)
        if len(self._objectives) == 1:
            gain = expected_improvement(mean, deviation, float(self._warped(learned).min()))
        else:
            gain = self._gain_within_bounds(learned, known, candidates, views, mean, deviation)
        chosen = int(candidates[int((self._feasibility(views) * gain / work).argmax())])
        if self._paths is None or (first := self._paths.first(chosen)) == chosen:
            return chosen
        feasibility = self._feasibility(self._memo.encoder.views(np.array([first])))
        return first if float(feasibility[0]) > _LIKELY else chosen

    def _gain_within_bounds(
        self,
        learned: int,
        known: set[str],
        candidates: Positions,
        views: Views,
        mean: Array,
        deviation: Array,
    ) -> Array:
        """(M,) expected improvement over the best loss within bounds on the costs, summed over random bounds.

        A candidate counts for a bound with the probability that it keeps it.
        """
        others = [i for i in range(len(self._objectives)) if i != learned]
        losses = self._warped(learned)[self._feasible]
        found = self._losses[self._feasible][:, others]  # (F, C)
        predicted = [self._costs(i, known, candidates, views) for i in others]
        costs = np.column_stack([each.expected for each in predicted])  # (M, C)
        low = np.minimum(found.min(axis=0), costs.min(axis=0))
        # Costs may differ by more than a tenth of their range.
        beyond = np.where(costs > found.max(axis=0), costs, np.inf).min(axis=0)
        reached = np.where(np.isfinite(beyond), beyond, found.max(axis=0))
        high = low + _BEYOND * (np.maximum(reached, low) - low)
        bounds = low + self._rng.random((_BOUNDS, len(others))) * (high - low)
        within = np.prod([each.within(bounds[:, i]) for i, each in enumerate(predicted)], axis=0)  # (M, bounds)
        if not within.any():
            within[:] = 1.0
        before = (found[:, None] <= bounds).all(axis=2)  # (F, bounds)
        best = np.where(before, losses[:, None], np.inf).min(axis=0)
        best = np.where(np.isfinite(best), best, losses.max())
        gains = expected_improvement(mean[:, None], deviation[:, None], best)
        return np.asarray((within * gains).sum(axis=1))

    def _costs(self, objective: int, known: set[str], candidates: Positions, views: Views) -> Costs:
        metric = self._objectives[objective]
        if metric.metric in known:
            return Costs(np.array([metric.loss(self._memo.encoder.known(int(p))) for p in candidates]))
        # Of infeasible trials, too.
        costs, conditioned = self._losses[:, objective], self._conditioned
        fitted = self._refitted(("costs", objective), self._positions, costs, fit_costs)
        return predicted_costs(fitted, self._trials, costs[conditioned], views)

    @cached_property
    def _trials(self) -> Views:
        """Of the trials that processes are conditioned on."""
        return self._memo.encoder.views(self._positions[self._conditioned])

    def _feasibility(self, views: Views) -> Array:
        """(M,) probability that candidates are feasible; 1 if no trial has broken a limit."""
        from scipy.special import ndtr

        if not self._excess.any():
            return np.ones(len(views[0]))
        # Negative for feasible trials; otherwise the violation plus a step.
        sides = np.where(self._excess > 0, 1 + np.minimum(self._excess, 1.0), -1.0)
        fitted = self._fitted("limits", self._judged, sides)
        known = self._memo.encoder.views(self._judged[-_MOST:])
        mean, deviation = additive(fitted, known, sides[-_MOST:], views)
        return np.asarray(ndtr(-mean / deviation))

    def _conditioning(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Indices of the trials that the process is conditioned on."""
        from scipy.stats import rankdata

        count = len(self._positions)
        if count <= _MOST:
            return np.arange(count)
        best = np.argsort(rankdata(self._targets, axis=0).sum(axis=1), kind="stable")[: _MOST // 2]
        front = np.array(self._front()[: _MOST // 2], dtype=np.int64)
        return np.unique(np.concatenate([front, best, np.arange(count - _MOST // 2, count)]))[-_MOST:]

    def _front(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        import moocore

        return np.asarray(np.flatnonzero(moocore.is_nondominated(self._targets)))

    def _leaders(self) -> list[int]:
        """Positions whose neighbors are candidates: the best few, or the front."""
        if len(self._objectives) == 1:
            order = np.argsort(self._targets[:, 0], kind="stable")[:5]
            return [int(p) for p in self._positions[order]]
        on_front = self._front()
        if len(on_front) > 10:
            on_front = np.sort(self._rng.choice(on_front, 10, replace=False))
        return [int(p) for p in self._positions[on_front]]

    def _warped(self, objective: int) -> Array:
        """(N,) targets of mean 0 and variance 1."""
        return self._scaled(objective)[: len(self._positions)]

    def _scaled(self, objective: int) -> Array:
        """(N + P,) targets including intermediate networks whose loss in this objective is known."""
        return _rank_normal(self._values(objective))

    def _values(self, objective: int) -> Array:
        passed = self._passed_losses if objective == 0 else np.zeros(0)
        return np.concatenate([self._targets[:, objective], passed])

    def _use_known_losses(
        self, paths: TrainingPaths, process: Mixture, mean: Array, deviation: Array, candidates: Positions,
        where: np.ndarray[Any, Any],
    ) -> None:  # fmt: skip
        """Where no training is left, predict the known loss of the last ancestor plus the predicted loss after it."""
        known = [(row, ancestor) for row in np.flatnonzero(where) if (ancestor := paths.last(int(candidates[row])))]
        if not known:
            return
        rows = [row for row, _ in known]
        ancestors = np.array([position for _, (position, _) in known], dtype=np.int64)
        before, _ = process.predict(self._memo.encoder.views(ancestors))
        lost = np.maximum(0.0, mean[rows] - before)
        values, scaled = self._values(0), self._scaled(0)
        order = np.argsort(values, kind="stable")
        mean[rows] = np.interp([loss for _, (_, loss) in known], values[order], scaled[order]) + lost
        deviation[rows] = _KNOWN

    def _process(self, objective: int) -> Mixture:
        scaled, count = self._scaled(objective), len(self._positions)
        targets = np.concatenate([scaled[:count][self._conditioned], scaled[count:]])
        fitted = self._fitted(objective, self._positions, self._targets[:, objective])
        passed = self._passed[: len(scaled) - count]
        known = np.concatenate([self._positions[self._conditioned], passed])
        process = Mixture(fitted, self._memo.encoder.views(known) if len(passed) else self._trials, targets)
        if len(self._running):
            # Running trials count with their predicted losses.
            expected, _ = process.predict(self._memo.encoder.views(self._running))
            known, targets = np.concatenate([known, self._running]), np.concatenate([targets, expected])
            process = Mixture(fitted, self._memo.encoder.views(known), targets)
        return process

    def _fitted(self, name: object, positions: Positions, values: Array) -> Fitted:
        """The kernels of a process over normal quantiles of ranks."""
        return self._refitted(name, positions, values, lambda views, known: fit_mixture(views, _rank_normal(known)))

    def _refitted(
        self, name: object, positions: Positions, values: Array, fit: Callable[[Views, Array], FittedT]
    ) -> FittedT:
        """What is fitted to the trials of the last refit, without those after it."""
        count = GraphGp.STARTUP
        while max(count + 1, int(count * _REFIT)) <= len(positions):
            count = max(count + 1, int(count * _REFIT))
        chosen, known = positions[:count][-_FIT_ON:], values[:count][-_FIT_ON:]
        key = (name, tuple(chosen.tolist()), known.tobytes())
        fits = self._memo.fits
        if key not in fits:
            if len(fits) > 8:
                fits.clear()
            fits[key] = fit(self._memo.encoder.views(chosen), known)
        found: FittedT = fits[key]
        return found


def _rank_normal(values: Array) -> Array:
    """Ranks as quantiles of a normal distribution, equal values alike, of mean 0 and variance 1."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    normal = ndtri((rankdata(values) - 0.5) / len(values))
    return np.asarray((normal - normal.mean()) / max(1e-12, float(normal.std())))
