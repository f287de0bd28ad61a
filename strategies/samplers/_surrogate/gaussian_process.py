"""Gaussian processes over feature vectors in blocks, and the expected improvement under a normal prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_NOISES = (1e-3, 1e-2, 5e-2, 2e-1)
_SWEEPS = 2
# Log-normal prior of the squared length scales: its median, and its deviation in powers of two.
_USUAL_LENGTH, _LENGTH_SPREAD = 32.0, 1.5
# Models of less weight are left out.
_LEAST_WEIGHT = 0.02


class Vectors:
    """Vectors of N points, and their distances to others, which are computed once.

    Args:
        blocks: (N, width) each.
    """

    def __init__(self, blocks: Sequence[Array]) -> None:
        self.blocks = blocks
        self._distances: dict[int, tuple[Vectors, list[Array]]] = {}

    def __len__(self) -> int:
        return len(self.blocks[0])

    def distances(self, other: Vectors) -> list[Array]:
        """(N, M) squared distances in each block."""
        if id(other) not in self._distances:
            found = [_distances(one, two) for one, two in zip(self.blocks, other.blocks, strict=True)]
            self._distances[id(other)] = other, found
        return self._distances[id(other)][1]


Views = Sequence[Vectors]
"""The same points in several views."""


@dataclass(frozen=True)
class Kernel:
    """``exp(-sum_b |x_b - x'_b|^2 / lengths_b)`` plus noise on the diagonal.

    Attributes:
        lengths: squared length scale of each block.
        noise: variance, as a share of the signal's.
    """

    lengths: tuple[float, ...]
    noise: float

    def __call__(self, one: Vectors, other: Vectors) -> Array:
        """(N, M) covariances of N and M vectors, without the noise."""
        exponents = _weighted(one.distances(other), self.lengths)
        return np.asarray(np.exp(exponents, out=exponents))


Fitted = Sequence[tuple[float, Kernel]]
"""The weight and the kernel of each view."""


def fit_kernel(vectors: Vectors, targets: Array, prior: bool = False) -> Kernel:
    """Lengths and noise with the highest marginal likelihood on a grid, by coordinate ascent; the signal scale is free.

    Args:
        vectors: of N points.
        targets: (N,) of mean 0.
        prior: whether lengths have a log-normal prior, so that ten targets turn no block on or off by chance.
    """
    distances = vectors.distances(vectors)

    def density(lengths: Sequence[float], noise: float) -> float:
        deviations = np.log2(np.array(lengths) / _USUAL_LENGTH) / _LENGTH_SPREAD
        found = _log_likelihood(distances, lengths, noise, targets)
        return found - 0.5 * float(deviations @ deviations) if prior else found

    lengths, noise = [_USUAL_LENGTH] * len(distances), 1e-2
    best = density(lengths, noise)
    for _ in range(_SWEEPS):
        for position in range(len(distances) + 1):
            for value in _LENGTHS if position < len(distances) else _NOISES:
                trial = [*lengths, noise]
                if value == trial[position]:
                    continue
                trial[position] = value
                found = density(trial[:-1], trial[-1])
                if found > best:
                    best, lengths, noise = found, trial[:-1], trial[-1]
    return Kernel(tuple(lengths), noise)


def fit_mixture(views: Views, targets: Array) -> Fitted:
    """The weight of each view, and its kernel as `fit_kernel` fits it; with a prior if there are several views.

    Weights follow from the densities that each view gives to left-out targets (pseudo-Bayesian model averaging, Geisser
    and Eddy 1979), not from the marginal likelihood: this is steadier with few targets.

    Args:
        views: of N points.
        targets: (N,) of mean 0.
    """
    if len(views) == 1:
        return [(1.0, fit_kernel(views[0], targets))]
    kernels = [fit_kernel(vectors, targets, prior=True) for vectors in views]
    densities = [_left_out(kernel, vectors, targets) for kernel, vectors in zip(kernels, views, strict=True)]
    return list(zip(model_weights(densities), kernels, strict=True))


def model_weights(densities: Sequence[float]) -> list[float]:
    """Weights of models, of sum 1, by the log densities that they give to left-out targets; small ones are 0."""
    weights = np.exp(np.array(densities) - max(densities))
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    return [float(weight) for weight in weights / weights.sum()]


def left_out_density(fitted: Fitted, views: Views, targets: Array) -> float:
    """Log density that a mixture gives to each target given all others, summed; the mean over its processes."""
    return sum(w * _left_out(k, vectors, targets) for (w, k), vectors in zip(fitted, views, strict=True) if w > 0)


class GaussianProcess:
    """The posterior of a zero-mean process after observations.

    Source: Rasmussen and Williams 2006, algorithm 2.1.

    Args:
        kernel: of the process.
        vectors: of N points.
        targets: (N,).
    """

    def __init__(self, kernel: Kernel, vectors: Vectors, targets: Array) -> None:
        from scipy.linalg import cholesky, solve_triangular

        self._kernel, self._vectors = kernel, vectors
        covariance = kernel(vectors, vectors)
        covariance[np.diag_indices(len(targets))] += kernel.noise + 1e-8
        self._factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._whitened = solve_triangular(self._factor, targets, lower=True, check_finite=False)
        self._scale = max(1e-12, float(self._whitened @ self._whitened) / len(targets))

    def predict(self, vectors: Vectors) -> tuple[Array, Array]:
        """Mean and standard deviation at M points, (M,) each."""
        from scipy.linalg import solve_triangular

        across = self._kernel(self._vectors, vectors)
        whitened = solve_triangular(self._factor, across, lower=True, overwrite_b=True, check_finite=False)
        variance = self._scale * np.maximum(1.0 - np.einsum("ij,ij->j", whitened, whitened), 1e-9)
        return whitened.T @ self._whitened, np.sqrt(variance)


class Mixture:
    """A weighted mixture of processes on several views of the same points, as the normal of equal mean and variance.

    Args:
        fitted: the weight and the kernel of each view.
        views: of N points.
        targets: (N,).
    """

    def __init__(self, fitted: Fitted, views: Views, targets: Array) -> None:
        self._processes = [
            (weight, view, GaussianProcess(kernel, views[view], targets))
            for view, (weight, kernel) in enumerate(fitted)
            if weight > 0
        ]

    def predict(self, views: Views) -> tuple[Array, Array]:
        """Mean and standard deviation at M points, (M,) each."""
        predicted = [(weight, *process.predict(views[view])) for weight, view, process in self._processes]
        if len(predicted) == 1:
            return predicted[0][1:]
        mean = sum(weight * each for weight, each, _ in predicted)
        variance = sum(weight * (own**2 + (each - mean) ** 2) for weight, each, own in predicted)
        return np.asarray(mean), np.sqrt(variance)


def expected_improvement(mean: Array, deviation: Array, best: float | Array) -> Array:
    """``E[max(0, best - Y)]`` of normal ``Y``, elementwise (Jones et al. 1998)."""
    from scipy.special import ndtr

    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


def _distances(one: Array, other: Array) -> Array:
    squares = np.einsum("ij,ij->i", one, one)[:, None] + np.einsum("ij,ij->i", other, other)[None]
    if one.shape[1] > len(one):  # paths through large cells: most columns are of other points
        used = one.any(axis=0)
        one, other = one[:, used], other[:, used]
    squares -= 2 * (one @ other.T)
    return np.asarray(np.maximum(squares, 0.0, out=squares))


def _weighted(distances: Sequence[Array], lengths: Sequence[float]) -> Array:
    """(N, M) exponents of the kernel."""
    total = distances[0] / -lengths[0]
    for each, length in zip(distances[1:], lengths[1:], strict=True):
        total -= each / length
    return total


def _left_out(kernel: Kernel, vectors: Vectors, targets: Array) -> float:
    """Log density of each target given all others, summed (Rasmussen and Williams 2006, equation 5.12)."""
    covariance = kernel(vectors, vectors)
    covariance[np.diag_indices(len(targets))] += kernel.noise
    inverse = np.linalg.inv(covariance)
    variance = 1 / np.diag(inverse)
    residuals = variance * (inverse @ targets)
    variance = variance * max(1e-12, float((residuals**2 / variance).mean()))
    return -0.5 * float((np.log(variance) + residuals**2 / variance).sum())


def _log_likelihood(distances: Sequence[Array], lengths: Sequence[float], noise: float, targets: Array) -> float:
    from scipy.linalg import LinAlgError, cholesky, solve_triangular

    count = len(targets)
    covariance = np.exp(_weighted(distances, lengths))
    covariance[np.diag_indices(count)] += noise
    try:
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return -np.inf
    whitened = solve_triangular(factor, targets, lower=True, check_finite=False)
    scale = max(1e-12, float(whitened @ whitened) / count)
    return -0.5 * count * float(np.log(scale)) - float(np.log(np.diag(factor)).sum())
