"""Latency on another device, from the cost of a file's operators on this machine and few files measured there."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Relative error of a measured latency, and above which a file counts less.
_NOISE, _OUTLIER = 0.02, 0.1
# Prior standard deviations, as shares of a call: of a factor of operators' costs relative to their share, but at least
# of a small share, and of each kind of work.
_OF_COST, _LEAST_SHARE, _OF_WORK = 0.5, 0.02, 0.15
_ROUNDS = 10
# Largest factor between a prediction and the costs on this machine at the device's slowness.
_MOST = 4.0


@dataclass(frozen=True)
class FileCost:
    """The cost of a file on this machine.

    Attributes:
        overhead: milliseconds of a call without operators.
        by_kind: milliseconds of the operators of each kind.
        work: what the file computes before the runtime optimizes it, see `operators.work_of`.
    """

    overhead: float
    by_kind: tuple[float, ...]
    work: Mapping[str, float]


class DeviceCorrection:
    """Predicts milliseconds on another device by two Bayesian linear regressions.

    One has a factor for the overhead and for the operators of each kind, which the prior pulls to the slowness of the
    device. The other has a factor for the overhead, one for all operators, and milliseconds for each kind of work that
    the prior pulls to 0: another runtime may fuse and arrange operators otherwise. Their mean is weighted by their
    errors for files that are left out.

    Args:
        slowness: milliseconds there relative to this machine, while no file was measured.
    """

    def __init__(self, slowness: float) -> None:
        self._slowness = slowness
        self._measured: dict[Hashable, tuple[FileCost, float]] = {}

    def add(self, file: Hashable, cost: FileCost, ms: float) -> None:
        """Add the measured latency of a file; it replaces an earlier one of the same file."""
        self._measured[file] = cost, ms

    def ms(self, cost: FileCost) -> float:
        """The predicted latency of a file."""
        total = cost.overhead + sum(cost.by_kind)
        if not self._measured:
            return self._slowness * total
        costs = [one for one, _ in self._measured.values()]
        measured = np.array([ms for _, ms in self._measured.values()])
        work = sorted({name for one in costs for name in one.work})
        typical = float(np.median(measured / [one.overhead + sum(one.by_kind) for one in costs]))
        kinds = np.array([[one.overhead, *one.by_kind] for one in (*costs, cost)])
        amounts = np.array([[one.work.get(name, 0.0) for name in work] for one in (*costs, cost)])
        both = np.column_stack([kinds[:, 0], kinds[:, 1:].sum(axis=1), amounts])
        found = []
        for terms, known in ((kinds, kinds.shape[1]), (both, 2)):
            factors, error = _regression(terms[:-1], known, measured)
            found.append((float(terms[-1] @ factors), error**-2))
        mean = sum(ms * weight for ms, weight in found) / sum(weight for _, weight in found)
        return min(max(mean, typical * total / _MOST), typical * total * _MOST)


def _regression(terms: Array, known: int, measured: Array) -> tuple[Array, float]:
    """Posterior means of the factors, and the mean relative error for files that are left out.

    Args:
        terms: (files, terms).
        known: number of terms, the first ones, whose factors are alike; those of the others are 0 a priori.
        measured: (files) milliseconds.
    """
    prior = np.repeat([1.0, 0.0], [known, terms.shape[1] - known])
    scale = float(np.median(measured / (terms @ prior)))
    scaled, call = terms * scale, float(np.median(measured))
    shares = np.maximum(scaled[:, :known].mean(axis=0) / scaled[:, :known].sum(axis=1).mean(), _LEAST_SHARE)
    spread = call * np.concatenate([_OF_COST * shares, np.full(len(prior) - known, _OF_WORK)])
    size = np.sqrt((scaled**2).mean(axis=0))
    variance = np.where(size > 1e-6 * call, spread / np.maximum(size, 1e-12), 0.0) ** 2
    rows = scaled / measured[:, None]
    residuals, weights = 1 - rows @ prior, np.ones(len(rows))
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv((rows * variance) @ rows.T + np.diag(_NOISE**2 / np.maximum(weights, 1e-3)))
        factors = prior + variance * (rows.T @ (inverse @ residuals))
        errors = np.abs(rows @ factors - 1)
        weights = np.minimum(1, max(_OUTLIER, float(np.median(errors))) / np.maximum(errors, 1e-12))
    left_out = np.sort(np.abs(inverse @ residuals) / np.diag(inverse))
    return factors * scale, max(float(left_out[: math.ceil(0.9 * len(left_out))].mean()), 1e-4)
