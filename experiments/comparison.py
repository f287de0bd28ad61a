"""A comparison of methods as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE = "base"
"""The name of what all methods begin with."""

Row = Mapping[str, Any]

_KINDS = {"fp32": "C0", "int8": "C1", "weights only": "C2", "storage only": "C4", "simulated": "C3"}


def table(rows: Sequence[Row], title: str) -> Table:
    """A line for each method; one that could not be applied has its reason."""
    made = Table(title=escape(title), title_justify="left")
    made.add_column("method", overflow="fold", min_width=22, max_width=40)
    made.add_column("kind", no_wrap=True)
    headings = ("test %", "val %", "ms", "ms, 64", "KiB", "packed", "params", "MACs", "seconds", "lines")
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["reason"] is not None:
            made.add_row(f"{escape(row['name'])}: [dim]{escape(row['reason'])}[/dim]")
            continue
        made.add_row(
            escape(row["name"]),
            row["kind"],
            f"{100 * row['test_accuracy']:.2f}",
            f"{100 * row['val_accuracy']:.2f}",
            f"{row['latency_ms']:#.3g}",
            f"{row['latency_batch64_ms']:#.3g}",
            f"{row['size_kib']:.1f}",
            "" if row["packed_kib"] is None else f"{row['packed_kib']:.1f}",
            f"{row['params']:,.0f}",
            f"{row['macs']:,.0f}",
            f"{row['seconds']:.1f}",
            str(row["lines"]),
        )
    return made


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Accuracy against latency and against size, all points with their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(20, 11), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    accuracies = [100 * row["test_accuracy"] for row in rows]
    # What fell far behind would press all others together: it stands on the lower edge.
    best, middle = max(accuracies), float(np.median(accuracies))
    bottom = max(min(accuracies), best - max(6 * (best - middle), 1.0))
    axes = figure.subplots(1, 2, sharey=True)
    points: list[list[tuple[float, float, str]]] = [[], []]
    for ax, column, found in zip(axes, ("latency_ms", "size_kib"), points, strict=True):
        for row, accuracy in zip(rows, accuracies, strict=True):
            name, y = row["name"], max(accuracy, bottom)
            marker = "v" if accuracy < bottom else "*" if name == BASE else "o"
            ax.plot(row[column], y, marker, color=_KINDS[row["kind"]], markersize=12 if name == BASE else 6)
            found.append((row[column], y, f"{name} ({accuracy:.1f}%)" if accuracy < bottom else name))
        ax.set_xscale("log")
        ax.margins(0.1)
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=100))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set_xlabel("latency at batch 1, ms")
    axes[1].set_xlabel("size of the file, KiB")
    axes[0].set_ylabel("test accuracy, %")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        axes[0].plot([], [], "o", color=_KINDS[kind], label=kind)
    figure.legend(loc="outside lower center", ncols=len(_KINDS))
    figure.draw_without_rendering()  # only now is it known where the points are
    for ax, found in zip(axes, points, strict=True):
        _label(ax, found)
    figure.savefig(path, dpi=figure.dpi)


def _label(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """A name beside each point, joined to it by a line, where it hides neither a point nor another name."""
    from matplotlib.transforms import Bbox

    centres = ax.transData.transform([(x, y) for x, y, _ in points])  # (N, 2) pixels
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    frame = ax.get_window_extent()
    pixels = ax.figure.dpi / 72  # a point
    for (x, y, text), (left, low) in zip(points, centres, strict=True):
        label = ax.text(x, y, text, fontsize=8)
        width, height = label.get_window_extent().size
        for turn in range(400):  # outwards along a spiral, to the right first
            distance, angle = 8 + 0.5 * turn, turn * 2 * np.pi / 12
            across, up = distance * np.cos(angle), distance * np.sin(angle)
            box = Bbox.from_bounds(left + across - (width if across < 0 else 0), low + up - height / 2, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        label.remove()
        ax.annotate(
            text, (x, y), ((box.x0 - left) / pixels, (box.y0 - low) / pixels), textcoords="offset points", fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "gray", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
