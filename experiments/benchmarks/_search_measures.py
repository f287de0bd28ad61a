"""Measures of a search: accuracy, hypervolume, tests over seeds, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks._searches import START, SearchTrace, is_peer
from experiments.benchmarks._trained_tables import OBJECTIVES, Numbers, TrainedTable
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_BEYOND = 1.1
_RESAMPLES = 2000


def evaluations_to(accuracy: Numbers, target: float, cap: int) -> int:
    """Number of evaluations until one reaches `target`; `cap` if none does.

    Args:
        accuracy: of the evaluations, in order.
    """
    reached = np.flatnonzero(accuracy >= target - 1e-9)
    return int(reached[0]) + 1 if len(reached) else cap


def best_after(accuracy: Numbers, count: int) -> float:
    """The best of the first `count` evaluations."""
    return float(accuracy[:count].max())


def picked(seen: Numbers, truth: Numbers, rows: Sequence[int]) -> float:
    """The true value of the row with the best observed value; the first one of equal ones."""
    evaluated = np.array(rows)
    return float(truth[evaluated[int(seen[evaluated].argmax())]])


class Front:
    """The true Pareto front of a table, against which sets of its rows are measured.

    Losses are scaled such that the front's ideal is 0 and its nadir 1, and clipped at 1.1, which is also the reference
    point on every axis.

    Args:
        losses: (rows, objectives) of the whole table, lower is better; the first objective needs training, the others
            are costs.
    """

    def __init__(self, losses: Numbers) -> None:
        front = losses[_nondominated(losses)]
        ideal, nadir = front.min(axis=0), front.max(axis=0)
        if losses.shape[1] > 2:
            # An untrainable network is on the front of three objectives for its latency: it would stretch this axis.
            nadir[0] = losses[_nondominated(losses[:, :2]), 0].max()
        self._scaled = np.minimum((losses - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0), _BEYOND)
        self._volume = self._of(np.flatnonzero(_nondominated(losses)))

    def missing(self, rows: Sequence[int]) -> float:
        """1 - hypervolume of `rows` relative to that of the true front."""
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
        median, lower, upper: median and quartiles.
        low, high: 95% interval of the median, by the percentile bootstrap over seeds (Efron and Tibshirani 1993).
    """

    median: float
    lower: float
    upper: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Summarize at least one value."""
    numbers = np.array(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(_RESAMPLES, len(numbers)))
    low, high = np.percentile(np.median(numbers[drawn], axis=1), [2.5, 97.5])
    lower, median, upper = np.percentile(numbers, [25, 50, 75])
    return Summary(float(median), float(lower), float(upper), float(low), float(high))


def wilcoxon(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945) of pairs; 1 if no pair differs.

    Pairs without a difference are dropped, as in the paper.
    """
    from scipy.stats import wilcoxon as test

    # Differences that are equal up to rounding are ties.
    differences = np.round(np.array(one, dtype=float) - np.array(other, dtype=float), 9)
    differences = differences[differences != 0]
    return float(test(differences).pvalue) if len(differences) else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """`p` adjusted for multiple tests by the step-down method (Holm 1979)."""
    adjusted, least = [0.0] * len(p), 0.0
    for place, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, p[position] * (len(p) - place)))
        adjusted[position] = least
    return adjusted


def objectives_of(data: TrainedTable, track: str) -> str:
    """The objectives of a track by name, such as "two objectives, val_accuracy and params"."""
    names = [objective.metric for objective in data.table.objectives[: OBJECTIVES[track]]]
    if len(names) == 1:
        return f"one objective, {names[0]}" + (" of one seed" if track == "noisy" else "")
    return f"{track} objectives, {', '.join(names[:-1])} and {names[-1]}"


def plot(
    path: Path,
    default: str,
    pairs: Sequence[tuple[TrainedTable, str]],
    found: Mapping[tuple[str, str, str], Sequence[SearchTrace]],
) -> None:
    """Plot the distance from the optimum by evaluations: medians over seeds, quartiles of the default and the peers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [(data, name) for data, name in pairs if name != "noisy"]
    if not drawn:
        raise SlimsearchError("--plot: the noisy track alone has nothing to draw")
    datasets, tracks = (list(dict.fromkeys(names)) for names in zip(*((d.name, t) for d, t in drawn), strict=True))
    figure = Figure(figsize=(6 * len(datasets), 4.5 * len(tracks) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(tracks), len(datasets), squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    peers = list(dict.fromkeys(name for _, _, name in found if is_peer(name)))
    own = list(dict.fromkeys(name for _, _, name in found if not is_peer(name) and name != default))
    for data, name in drawn:
        ax = axes[tracks.index(name)][datasets.index(data.name)]
        ax.set_visible(True)
        ax.set_title(f"{data.name}, {objectives_of(data, name)}")
        for searcher in (default, *peers, *own):
            if searches := found.get((data.name, name, searcher)):
                _line(ax, *_curve(data, name, searches), searcher, peers, own, default)
        ax.set_yscale("log")
        ax.grid(alpha=0.3)
        ax.set_xlabel("evaluations")
        ax.set_ylabel(f"distance from the optimum, {data.unit}" if name == "one" else "1 - hypervolume")
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=min(6, 3 * len(datasets)))
    figure.savefig(path, dpi=110)


def _curve(data: TrainedTable, name: str, searches: Sequence[SearchTrace]) -> tuple[Numbers, Numbers]:
    """(points,) numbers of evaluations and (seeds, points) the distance from the optimum."""
    last = data.marks[name][-1]
    if not all(one.ended for one in searches):
        last = min(last, *(len(one.rows) for one in searches if not one.ended))
    if name == "one":
        at = np.arange(min(START, last), last + 1)
        gaps = np.stack([data.truth.max() - _longest(data.truth[one.rows], last) for one in searches])
        return at.astype(float), np.maximum(
            gaps[:, at - 1], 1e-3
        )  # the optimum itself has no place on a logarithmic axis
    front = Front(data.table.losses[:, : OBJECTIVES[name]])
    at = np.unique(np.append(np.arange(START, last + 1, 10), last))
    missing = np.array([[front.missing(one.rows[:count]) for count in at] for one in searches])
    return at.astype(float), np.maximum(missing, 1e-4)


def _longest(accuracy: Numbers, count: int) -> Numbers:
    """(count,) best so far; a search that ended keeps its last value."""
    best = np.maximum.accumulate(accuracy[:count])
    return np.append(best, np.full(count - len(best), best[-1]))


def _line(
    ax: Axes, at: Numbers, missing: Numbers, searcher: str, peers: Sequence[str], own: Sequence[str], default: str
) -> None:
    lower, median, upper = np.percentile(missing, [25, 50, 75], axis=0)
    if searcher in own:
        colour = f"C{own.index(searcher) % 10}"
        ax.plot(at, median, label=searcher, color=colour, linewidth=0.8, linestyle=":")
        return
    colour = "black" if searcher == default else f"C{peers.index(searcher) % 10}"
    ax.plot(at, median, label=searcher, color=colour, linewidth=2.5 if searcher == default else 1.3)
    ax.fill_between(at, lower, upper, color=colour, alpha=0.12, linewidth=0)
