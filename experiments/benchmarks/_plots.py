"""Searches drawn: what is missing after every evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.benchmarks._measures import Front, Numbers
from experiments.benchmarks._searches import START, Searched, is_peer
from experiments.benchmarks._tables import OBJECTIVES, Data
from slimsearch.errors import SlimsearchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(
    path: Path,
    titles: Mapping[str, str],
    default: str,
    pairs: Sequence[tuple[Data, str]],
    found: Mapping[tuple[str, str, str], Sequence[Searched]],
) -> None:
    """What is missing after every evaluation: medians over seeds, and the quartiles of the default and the peers."""
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
        ax.set_title(f"{data.name}, {titles[name].partition(':')[0]}")
        for searcher in (default, *peers, *own):
            if searches := found.get((data.name, name, searcher)):
                _line(ax, *_curve(data, name, searches), searcher, peers, own, default)
        ax.set_yscale("log")
        ax.grid(alpha=0.3)
        ax.set_xlabel("evaluations")
        ax.set_ylabel("points of accuracy from the optimum" if name == "one" else "1 - hypervolume")
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=min(6, 3 * len(datasets)))
    figure.savefig(path, dpi=110)


def _curve(data: Data, name: str, searches: Sequence[Searched]) -> tuple[Numbers, Numbers]:
    """(points,) evaluations and (seeds, points) what is missing then."""
    last = data.marks[name][-1]
    if not all(one.ended for one in searches):
        last = min(last, *(len(one.rows) for one in searches if not one.ended))
    if name == "one":
        at = np.arange(min(START, last), last + 1)
        gaps = np.stack([data.truth.max() - _longest(data.truth[one.rows], last) for one in searches])
        return at.astype(float), np.maximum(
            gaps[:, at - 1], 1e-3
        )  # the optimum itself has no place on a logarithmic axis
    front = Front(data.problem.losses[:, : OBJECTIVES[name]])
    at = np.unique(np.append(np.arange(START, last + 1, 10), last))
    missing = np.array([[front.missing(one.rows[:count]) for count in at] for one in searches])
    return at.astype(float), np.maximum(missing, 1e-4)


def _longest(accuracy: Numbers, count: int) -> Numbers:
    """(count,) best so far; a search that ended keeps what it has."""
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
