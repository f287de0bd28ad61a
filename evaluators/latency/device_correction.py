"""Latency on another device, from the cost of a file's operators on this machine and few files measured there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimsearch.evaluators.latency.operators import KINDS

Array = np.ndarray[Any, np.dtype[Any]]

# Relative error of a measured latency, and error of its prediction from the other files above which a file counts less.
_NOISE, _OUTLIER = 0.02, 0.2
# Prior standard deviations, relative to the typical slowness of the device: of the slowness of the overhead and of each
# kind of operators; and, as shares of a call, of a typical number of operators, of multiply-accumulates and of values.
_OF_COST, _OF_OPERATORS, _OF_MACS, _OF_VALUES = 1.0, 0.2, 0.06, 0.03
_ROUNDS = 10
# Relative standard deviation up to which a prediction is sure.
_SURE = 0.04
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

    @property
    def ms(self) -> float:
        """Milliseconds of a call."""
        return self.overhead + sum(self.by_kind)


class DeviceCorrection:
    """Predicts milliseconds on another device by Bayesian linear regression.

    The ratio of the milliseconds there to those here is linear in the shares that the overhead and the operators of
    each kind have in a call here, and in the amount of each kind of work: another runtime fuses and arranges operators
    otherwise. The prior pulls the ratio to the median of the measured ones. It is computed as a Gaussian process.

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
        if not self._measured:
            return self._slowness * cost.ms
        ratios = np.array([ms / measured.ms for measured, ms in self._measured.values()])
        typical = float(np.median(ratios))
        relative, weights = ratios / typical, np.ones(len(ratios))
        kernel = self._kernel(cost)
        among = kernel[:-1, :-1]
        for _ in range(_ROUNDS):
            variances = (_NOISE * relative) ** 2 / np.maximum(weights, 1e-3)
            inverse = np.linalg.inv(among + np.diag(variances))
            factors = inverse @ (relative - 1)
            left_out = np.abs(factors / np.diag(inverse)) / relative
            weights = np.minimum(1, (max(_OUTLIER, float(np.median(left_out))) / np.maximum(left_out, 1e-12)) ** 2)
        ratio = 1 + float(kernel[-1, :-1] @ factors)
        return cost.ms * typical * min(max(ratio, 1 / _MOST), _MOST)

    def is_sure(self, cost: FileCost) -> bool:
        """Whether the measured files are so like this one that its measurement would improve predictions little."""
        kernel = self._kernel(cost)
        among, across = kernel[:-1, :-1], kernel[-1, :-1]
        explained = across @ np.linalg.solve(among + _NOISE**2 * np.eye(len(among)), across)
        return bool(kernel[-1, -1] - explained <= _SURE**2)

    def _kernel(self, cost: FileCost) -> Array:
        """Prior covariances of the relative ratios of the measured files and of one more."""
        costs = [*(measured for measured, _ in self._measured.values()), cost]
        names = sorted({name for one in costs for name in one.work})
        shares = np.array([[one.overhead / one.ms, *(ms / one.ms for ms in one.by_kind)] for one in costs])
        work = np.array([[one.work.get(name, 0.0) / one.ms for name in names] for one in costs])
        # A typical amount is that of the measured files; of work that none of them has, that of this file.
        typical = np.sqrt((work[:-1] ** 2).sum(axis=0) / max(1, len(costs) - 1))
        typical = np.where(typical > 0, typical, np.maximum(work[-1], 1e-300))
        terms = np.hstack(
            [np.ones((len(costs), 1)), _OF_COST * shares, work / typical * [_spread(name) for name in names]]
        )
        kernel: Array = terms @ terms.T
        return kernel


def _spread(work: str) -> float:
    return _OF_OPERATORS if work == "operators" else _OF_MACS if work in KINDS else _OF_VALUES
