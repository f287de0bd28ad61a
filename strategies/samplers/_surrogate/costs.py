"""Costs of candidates: known, or predicted with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.strategies.samplers._surrogate.gaussian_process import (
    Array,
    Fitted,
    Mixture,
    Vectors,
    Views,
    fit_mixture,
    left_out_density,
    model_weights,
)


@dataclass(frozen=True)
class _Prediction:
    """Normal predictions of M costs or of their logarithms.

    Attributes:
        mean, deviation: (M,).
        logarithmic: whether they are of the logarithm.
    """

    mean: Array
    deviation: Array
    logarithmic: bool

    @property
    def median(self) -> Array:
        """(M,) on the scale of the costs."""
        return np.asarray(np.exp(self.mean)) if self.logarithmic else self.mean

    def within(self, bounds: Array) -> Array:
        """(M, B) probabilities that costs are at most B bounds."""
        from scipy.special import ndtr

        if self.logarithmic:
            with np.errstate(divide="ignore", invalid="ignore"):
                bounds = np.where(bounds > 0, np.log(bounds), -np.inf)
        return np.asarray(ndtr((bounds - self.mean[:, None]) / self.deviation[:, None]))


@dataclass(frozen=True)
class Costs:
    """(M,) costs of candidates in one objective.

    Attributes:
        expected: (M,).
        predictions: with their weights, of sum 1; none if the costs are exact.
    """

    expected: Array
    predictions: Sequence[tuple[float, _Prediction]] = ()

    def within(self, bounds: Array) -> Array:
        """(M, B) probabilities that costs are at most B bounds."""
        if not self.predictions:
            return np.asarray(self.expected[:, None] <= bounds, dtype=float)
        return np.asarray(sum(weight * prediction.within(bounds) for weight, prediction in self.predictions))


@dataclass(frozen=True)
class CostModel:
    """Linear models plus processes over their residuals: of costs, and of their logarithms.

    Attributes:
        fitted: kernels of the processes, on each scale.
        weights: of the scales.
    """

    fitted: Sequence[Fitted]
    weights: Sequence[float]


def fit_costs(views: Views, costs: Array) -> CostModel:
    """A model of (N,) costs.

    Costs that span orders of magnitude are often products, and only logarithms tell the cheapest ones apart; others are
    sums, and a cost close to 0 distorts all logarithms. Each scale counts by the density that it gives to left-out
    costs.
    """
    fitted, densities = [], []
    for targets, jacobian in _scales(costs):
        residuals = targets - _linear(views[0], targets, views[0])[0]
        scale = residuals.std() + 1e-12
        kernels = fit_mixture(views, residuals / scale)
        fitted.append(kernels)
        density = left_out_density(kernels, views, residuals / scale)
        densities.append(density - len(costs) * float(np.log(scale)) + jacobian)
    return CostModel(fitted, model_weights(densities))


def predicted_costs(model: CostModel, known: Views, costs: Array, views: Views) -> Costs:
    """Costs of M candidates.

    Args:
        model: by `fit_costs`.
        known: of N trials.
        costs: (N,) of these.
        views: of the candidates.
    """
    # No extrapolation of logarithms to far more than any cost so far.
    most = 10 * np.abs(costs).max()
    scales = _scales(costs)
    weights = model.weights if len(scales) == len(model.weights) else (1.0,)
    predictions = [
        (weight, _Prediction(*additive(each, known, targets, views), logarithmic=position == 1))
        for position, (weight, each, (targets, _)) in enumerate(zip(weights, model.fitted, scales, strict=False))
        if weight > 0
    ]
    expected = sum(weight * np.minimum(prediction.median, most) for weight, prediction in predictions)
    return Costs(np.asarray(expected), predictions)


def additive(fitted: Fitted, known: Views, targets: Array, views: Views) -> tuple[Array, Array]:
    """(M,) mean and deviation of a linear model plus a process over its residuals."""
    explained, predicted = _linear(known[0], targets, views[0])
    scale = (targets - explained).std() + 1e-12
    mean, deviation = Mixture(fitted, known, (targets - explained) / scale).predict(views)
    return predicted + mean * scale, deviation * scale


def _scales(costs: Array) -> list[tuple[Array, float]]:
    """Costs and, if there are any, their logarithms, each with the log derivative by the costs, summed."""
    if not (costs > 0).all():
        return [(costs, 0.0)]
    logarithms = np.log(costs)
    return [(costs, 0.0), (logarithms, -float(logarithms.sum()))]


def _linear(known: Vectors, targets: Array, others: Vectors) -> tuple[Array, Array]:
    """Ridge regression with a penalty of 1: its values at the (N,) targets and at (M,) other points."""
    centers, mean = [block.mean(axis=0) for block in known.blocks], targets.mean()
    centered = [block - center for block, center in zip(known.blocks, centers, strict=True)]
    inner = np.sum([block @ block.T for block in centered], axis=0)
    duals = np.linalg.solve(inner + np.eye(len(targets)), targets - mean)
    predicted = np.full(len(others), mean)
    for block, center, vectors in zip(others.blocks, centers, centered, strict=True):
        weights = vectors.T @ duals
        predicted += block @ weights - center @ weights
    return inner @ duals + mean, predicted
