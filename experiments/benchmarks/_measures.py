"""How good a search was, from the rows of the table that it evaluated, and whether one is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]

NEAR = 0.1
"""Points of accuracy from the optimum that count as having found it."""
_BEYOND = 1.1
_RESAMPLES = 2000


def evaluations_to(accuracy: Numbers, target: float, cap: int) -> int:
    """Evaluations until one has at least the `target`; `cap` where none has.

    Args:
        accuracy: of what was evaluated, in order.
    """
    reached = np.flatnonzero(accuracy >= target - 1e-9)
    return int(reached[0]) + 1 if len(reached) else cap


def best_after(accuracy: Numbers, count: int) -> float:
    """Of the first `count` evaluations."""
    return float(accuracy[:count].max())


def one_seed(accuracy: Numbers, seed: int) -> Numbers:
    """(rows, seeds) with NaN -> (rows,): of each row the value of one of its seeds, the same for everyone.

    Args:
        accuracy: every row has at least one number, and those that it has come first.
        seed: of the search: which value a row shows follows from this and the row.
    """
    counts = np.isfinite(accuracy).sum(axis=1)
    chosen = (np.random.default_rng([seed, 1]).random(len(accuracy)) * counts).astype(np.int64)
    return np.asarray(accuracy[np.arange(len(accuracy)), chosen])


def picked(seen: Numbers, truth: Numbers, rows: Sequence[int]) -> float:
    """The true value of the row of `rows` whose seen value is the best; of equal ones, the first."""
    evaluated = np.array(rows)
    return float(truth[evaluated[int(seen[evaluated].argmax())]])


class Front:
    """The true Pareto front of a table, against which sets of its rows are measured.

    Losses are scaled such that the front's ideal is 0 and its nadir 1, and clipped at 1.1, which is also the reference
    point on every axis.

    Args:
        losses: (rows, objectives) of the whole table, less is better; the first objective is learned, the others are
            costs.
    """

    def __init__(self, losses: Numbers) -> None:
        front = losses[_nondominated(losses)]
        ideal, nadir = front.min(axis=0), front.max(axis=0)
        if losses.shape[1] > 2:
            # A network that learns nothing is on the front of three for its latency, and would stretch this axis.
            nadir[0] = losses[_nondominated(losses[:, :2]), 0].max()
        self._scaled = np.minimum((losses - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0), _BEYOND)
        self._volume = self._of(np.flatnonzero(_nondominated(losses)))

    def missing(self, rows: Sequence[int]) -> float:
        """1 - hypervolume of `rows`, as a share of the true front's."""
        return 1 - self._of(np.array(rows, dtype=np.int64)) / self._volume

    def _of(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        import moocore

        points = self._scaled[rows]
        return float(moocore.hypervolume(points, ref=np.full(points.shape[1], _BEYOND)))


def _nondominated(losses: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
    import moocore

    return np.asarray(moocore.is_nondominated(losses))


@dataclass(frozen=True)
class Summary:
    """A measure over seeds.

    Attributes:
        median, lower, upper: with the quartiles.
        low, high: 95% interval of the median, by the percentile bootstrap over seeds (Efron and Tibshirani 1993).
    """

    median: float
    lower: float
    upper: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    numbers = np.array(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(_RESAMPLES, len(numbers)))
    low, high = np.percentile(np.median(numbers[drawn], axis=1), [2.5, 97.5])
    lower, median, upper = np.percentile(numbers, [25, 50, 75])
    return Summary(float(median), float(lower), float(upper), float(low), float(high))


def wilcoxon(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945) of pairs; 1 where no pair differs.

    Pairs without a difference are dropped, as Wilcoxon did.
    """
    from scipy.stats import wilcoxon as test

    # Differences that are equal but for rounding are ties.
    differences = np.round(np.array(one, dtype=float) - np.array(other, dtype=float), 9)
    differences = differences[differences != 0]
    return float(test(differences).pvalue) if len(differences) else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """`p` adjusted for that many tests, step down (Holm 1979)."""
    adjusted, least = [0.0] * len(p), 0.0
    for place, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, p[position] * (len(p) - place)))
        adjusted[position] = least
    return adjusted
