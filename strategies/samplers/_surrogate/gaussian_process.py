"""A Gaussian process over feature vectors in blocks, and the expected improvement under a normal prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_NOISES = (1e-3, 1e-2, 5e-2, 2e-1)
_SWEEPS = 2


@dataclass(frozen=True)
class Kernel:
    """``exp(-sum_b |x_b - x'_b|^2 / lengths_b)`` plus noise on the diagonal.

    Attributes:
        lengths: squared length scale of each block.
        noise: variance, as a share of the signal's.
    """

    lengths: tuple[float, ...]
    noise: float

    def __call__(self, one: Sequence[Array], other: Sequence[Array]) -> Array:
        """(N, M) covariances of N and M vectors, without the noise."""
        a = np.hstack([block / np.sqrt(length) for block, length in zip(one, self.lengths, strict=True)])
        b = np.hstack([block / np.sqrt(length) for block, length in zip(other, self.lengths, strict=True)])
        distances = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * (a @ b.T)
        np.maximum(distances, 0.0, out=distances)
        return np.asarray(np.exp(-distances, out=distances))


def fit_kernel(blocks: Sequence[Array], targets: Array) -> Kernel:
    """Lengths and noise with the highest marginal likelihood on a grid, by coordinate ascent; the signal scale is free.

    Args:
        blocks: (N, width) vectors for each block.
        targets: (N,) of mean 0.
    """
    distances = [_distances(block) for block in blocks]
    lengths, noise = [16.0] * len(blocks), 1e-2
    best = _log_likelihood(distances, lengths, noise, targets)
    for _ in range(_SWEEPS):
        for position in range(len(blocks) + 1):
            for value in _LENGTHS if position < len(blocks) else _NOISES:
                trial = [*lengths, noise]
                trial[position] = value
                found = _log_likelihood(distances, trial[:-1], trial[-1], targets)
                if found > best:
                    best, lengths, noise = found, trial[:-1], trial[-1]
    return Kernel(tuple(lengths), noise)


class GaussianProcess:
    """The posterior of a zero-mean process after observations.

    Source: Rasmussen and Williams 2006, algorithm 2.1.

    Args:
        kernel: of the process.
        blocks: (N, width) vectors for each block.
        targets: (N,).
    """

    def __init__(self, kernel: Kernel, blocks: Sequence[Array], targets: Array) -> None:
        from scipy.linalg import cholesky, solve_triangular

        self._kernel, self._blocks = kernel, blocks
        covariance = kernel(blocks, blocks)
        covariance[np.diag_indices(len(targets))] += kernel.noise + 1e-8
        self._factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._whitened = solve_triangular(self._factor, targets, lower=True, check_finite=False)
        self._scale = max(1e-12, float(self._whitened @ self._whitened) / len(targets))

    def predict(self, blocks: Sequence[Array]) -> tuple[Array, Array]:
        """Mean and standard deviation at M vectors, (M,) each."""
        from scipy.linalg import solve_triangular

        across = self._kernel(self._blocks, blocks)
        whitened = solve_triangular(self._factor, across, lower=True, overwrite_b=True, check_finite=False)
        variance = self._scale * np.maximum(1.0 - np.einsum("ij,ij->j", whitened, whitened), 1e-9)
        return whitened.T @ self._whitened, np.sqrt(variance)


def expected_improvement(mean: Array, deviation: Array, best: float | Array) -> Array:
    """``E[max(0, best - Y)]`` of normal ``Y``, elementwise (Jones et al. 1998)."""
    from scipy.special import ndtr

    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)))


def _distances(block: Array) -> Array:
    squares = (block * block).sum(axis=1)
    return np.asarray(np.maximum(squares[:, None] + squares[None] - 2 * (block @ block.T), 0.0))


def _log_likelihood(distances: Sequence[Array], lengths: Sequence[float], noise: float, targets: Array) -> float:
    from scipy.linalg import LinAlgError, cholesky, solve_triangular

    count = len(targets)
    covariance = np.exp(-sum(d / length for d, length in zip(distances, lengths, strict=True)))
    covariance[np.diag_indices(count)] += noise
    try:
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return -np.inf
    whitened = solve_triangular(factor, targets, lower=True, check_finite=False)
    scale = max(1e-12, float(whitened @ whitened) / count)
    return -0.5 * count * float(np.log(scale)) - float(np.log(np.diag(factor)).sum())
