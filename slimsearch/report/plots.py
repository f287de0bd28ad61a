"""The plots of report.html as PNG, SVG or PDF files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.record.environment import read
from slimsearch.record.ranking import Ranking
from slimsearch.record.run_directory import RunDirectory
from slimsearch.record.trial import AUXILIARY, COMPLETE, COMPRESSION, REJECTED
from slimsearch.report.page_data import page_data
from slimsearch.report.stored_run import read_record
from slimsearch.report.tables import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

# The light colors of the page.
_INK, _SOFT, _RULE = "#20262b", "#58616a", "#dedbd2"
_SEARCH, _COMPRESSED, _REJECTED, _OTHER = "#4d76ad", "#0b7f6c", "#bf5a21", "#777d84"
_TITLES = {
    "val_accuracy": "Validation accuracy", "latency_ms": "Latency, ms", "size_kib": "Size, KiB",
    "ram_kib": "RAM, KiB", "flash_kib": "Flash, KiB", "energy_mj": "Energy, mJ", "params": "Parameters", "macs": "MACs",
}  # fmt: skip
_MOST_CHOICES = 12
_FEWEST_TICKS = 3
_AROUND_ONE_VALUE = 1.3
_DPI = 160

Data = Mapping[str, Any]


def plot(run_dir: str | Path, kind: str, path: str | Path, *, storage: str | None = None) -> Path:
    """Draw the plot `kind` (one of `KINDS`) of a run; the suffix of `path` is the format. Returns `path`.

    For `storage`, see `slimsearch.report.stored_run.stored_run`.

    Raises:
        SlimsearchError: `run_dir` is not a run or is in use, `kind` is unknown, or the file cannot be written.
    """
    path = Path(path).expanduser()
    if kind not in KINDS:
        raise SlimsearchError(f"there is no plot '{kind}'; plots: {', '.join(KINDS)}")
    if path.suffix.lower() not in SUFFIXES:
        raise SlimsearchError(f"'{path}' does not end in one of {', '.join(SUFFIXES)}")
    with RunDirectory(Path(run_dir), create=False) as directory:
        configuration = Configuration.read(directory.config)
        ranking = Ranking.of(configuration)
        trials = read_record(directory, configuration, ranking, storage).trials
        data = page_data(directory.path, trials, [], ranking, configuration, read(directory.path))
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9, "axes.edgecolor": _RULE, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _SOFT,
        "ytick.color": _SOFT, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        # Dollar signs in names are not mathematics.
        "text.parse_math": False, "svg.fonttype": "none",
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        KINDS[kind](figure, data)
        try:
            figure.savefig(path, dpi=_DPI)
        except OSError as error:
            raise SlimsearchError(f"cannot write '{path}': {error.strerror}") from error
    return path


def _front(figure: Figure, data: Data) -> None:
    """The first two objectives against each other, the third as the area of the marks; a line joins the front."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    names = [objective["metric"] for objective in data["objectives"]]
    up, across = names[0], names[1] if len(names) > 1 else None
    shown = [t for t in _completed(data) if t["metrics"].get(up) is not None]
    third = names[2] if len(names) > 2 else None
    areas = _areas([t["metrics"].get(third) for t in shown]) if third else [36.0] * len(shown)
    for trial, area in zip(shown, areas, strict=True):
        axes.scatter(
            trial["number"] if across is None else trial["metrics"][across], trial["metrics"][up], s=area,
            c=_color(trial), marker="D" if trial["kind"] == COMPRESSION else "o",
            alpha=1.0 if trial["on_front"] else 0.5, edgecolors=_INK if trial["on_front"] else "none", linewidths=1.2,
        )  # fmt: skip
    if across is not None:
        signs = [1 if objective["direction"] == "maximize" else -1 for objective in data["objectives"][:2]]
        front = sorted((t["metrics"] for t in shown if t["on_front"]), key=lambda m: signs[1] * m[across])
        leading: list[Mapping[str, float]] = []
        for metrics in reversed(front):  # those that also lead on the two axes shown
            if not leading or signs[0] * metrics[up] > signs[0] * leading[-1][up]:
                leading.append(metrics)
        axes.step([m[across] for m in leading], [m[up] for m in leading], where="post", color=_INK, lw=1, alpha=0.6)
        _scale(axes, "x", across, [t["metrics"][across] for t in shown])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _scale(axes, "y", up, [t["metrics"][up] for t in shown])
    axes.set_xlabel("Trial" if across is None else _title(across))
    axes.set_ylabel(_title(up))
    axes.grid(color=_RULE, lw=0.6)
    note = f"outlined: on the front{f'; area: {_title(third)}' if third else ''}; diamonds: compressed"
    axes.set_title(note, fontsize=8, color=_SOFT, loc="left")


def _hypervolume(figure: Figure, data: Data) -> None:
    """The hypervolume over trials, and over the running time."""
    for column, (along, title) in enumerate((("trials", "Trial"), ("seconds", "Running time, seconds"))):
        axes = figure.add_subplot(1, 2, column + 1)
        steps = data["history"][along]["volume"]
        axes.step([x for x, *_ in steps], [value for _, value, _ in steps], where="post", color=_COMPRESSED)
        for moment in data["history"]["breaks"] if along == "seconds" else ():
            axes.axvline(moment, color=_SOFT, ls=":", lw=1)
        axes.set_xlabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(color=_RULE, lw=0.6)
        if not column:
            axes.set_ylabel("Hypervolume")


def _importances(figure: Figure, data: Data) -> None:
    """A bar for each choice and objective, or the reason why there is none."""
    found = data["importances"]
    for column, one in enumerate(found):
        axes = figure.add_subplot(1, len(found), column + 1)
        axes.set_title(_title(one["metric"]), fontsize=9, loc="left")
        if one["note"]:
            axes.axis("off")
            axes.text(0, 0.9, one["note"].replace(": ", ":\n"), va="top", color=_SOFT, fontsize=8, wrap=True)
            continue
        shares = dict(list(one["shares"].items())[:_MOST_CHOICES])
        axes.barh(list(shares), list(shares.values()), color=_SEARCH)
        axes.invert_yaxis()
        axes.set_xlabel(f"importance ({one['method']})")


def _timeline(figure: Figure, data: Data) -> None:
    """A bar for each trial from start to end; the number of lanes is the number of trials at the same time."""
    axes = figure.add_subplot()
    for trial in data["trials"]:
        if trial["bar"] is not None:
            start, end, lane = trial["bar"]
            axes.barh(
                lane, end - start, left=start, height=0.8, color=_color(trial), alpha=1 if trial["on_front"] else 0.55,
                edgecolor="white", lw=0.4,
            )  # fmt: skip
    for moment in data["timeline"]["breaks"]:
        axes.axvline(moment, color=_SOFT, ls=":", lw=1)
    lanes = data["timeline"]["lanes"]
    if len(lanes) <= 32:
        axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(max(len(lanes), 4) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_ylabel("Lane")
    axes.set_xlabel("Running time, seconds")
    axes.set_title(
        f"{len(lanes)} lanes, in use {100 * data['timeline']['busy']:.0f}% of the time", fontsize=8, loc="left"
    )


def _parallel(figure: Figure, data: Data) -> None:
    """A line for each complete trial through its choices and objectives; better values are up."""
    axes = figure.add_subplot()
    trials = _completed(data)
    labels = [label for label in data["choices"] if len({t["point"].get(label) for t in trials}) > 1][:_MOST_CHOICES]
    goals = [one["metric"] for one in data["objectives"]]
    heights: list[list[float]] = []
    for column, label in enumerate(labels):
        texts = data["choices"][label]
        heights.append([_or_nan(_share(t["point"].get(label), 0, len(texts) - 1)) for t in trials])
        for position, text in enumerate(texts):
            height = _share(position, 0, len(texts) - 1)
            axes.text(column + 0.03, height or 0.0, _short(_plain(text)), fontsize=7, color=_SOFT, va="center")
    for column, objective in enumerate(data["objectives"], len(labels)):
        values = [t["metrics"].get(objective["metric"]) for t in trials]
        known = [value for value in values if value is not None]
        ends = (min(known), max(known)) if known else (0.0, 1.0)
        low, high = ends if objective["direction"] == "maximize" else ends[::-1]
        heights.append([_or_nan(_share(value, low, high)) for value in values])
        for height, end in ((0.0, low), (1.0, high)):
            axes.text(column + 0.03, height, f"{end:.4g}", fontsize=7, color=_SOFT, va="center")
    for i, trial in enumerate(trials):
        axes.plot(
            range(len(heights)), [values[i] for values in heights],
            color=_color(trial), lw=1.6 if trial["on_front"] else 0.8, alpha=0.95 if trial["on_front"] else 0.35,
            zorder=3 if trial["on_front"] else 2,
        )  # fmt: skip
    axes.set_xticks(
        range(len(heights)), [_short(name) for name in (*labels, *map(_title, goals))], rotation=20, ha="right"
    )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=_SOFT, lw=0.6)
    axes.set_title("strong: on the front; the better end of an objective is up", fontsize=8, color=_SOFT, loc="left")


KINDS: Mapping[str, Callable[[Figure, Data], None]] = {
    "front": _front, "hypervolume": _hypervolume, "importances": _importances, "timeline": _timeline,
    "parallel": _parallel,
}  # fmt: skip
"""The plots by name."""


def _completed(data: Data) -> list[Data]:
    return [t for t in data["trials"] if t["state"] == COMPLETE and t["kind"] not in AUXILIARY]


def _color(trial: Data) -> str:
    if trial["state"] == REJECTED:
        return _REJECTED
    return _OTHER if trial["state"] != COMPLETE else _COMPRESSED if trial["kind"] == COMPRESSION else _SEARCH


def _areas(values: Sequence[float | None]) -> list[float]:
    """Areas of marks, in square points, from the smallest to the largest value."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    return [20 + 120 * (_share(value, low, high) or 0.0) for value in values]


def _share(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else 0.5 if high == low else (value - low) / (high - low)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _scale(axes: Axes, which: str, metric: str, values: Sequence[float]) -> None:
    """Logarithmic axes for costs, per cent for accuracies; tick labels are plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis: Axis = getattr(axes, f"{which}axis")
    if is_share(metric, values):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g} %"))
    elif metric.endswith(("_ms", "_kib", "params", "macs")) and values and min(values) > 0:
        getattr(axes, f"set_{which}scale")("log")
        if math.isclose(min(values), max(values), rel_tol=1e-6):
            getattr(axes, f"set_{which}lim")(min(values) / _AROUND_ONE_VALUE, max(values) * _AROUND_ONE_VALUE)
        axis.set_major_locator(FixedLocator(_logarithmic_ticks(*axis.get_view_interval())))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """At least three ticks from `low` to `high`: powers of ten, or their multiples, or multiples of a smaller step."""
    from matplotlib.ticker import MaxNLocator

    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    choices = [
        *([part * power for power in powers for part in parts] for parts in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))),
        *(MaxNLocator(parts, steps=[1, 2, 5, 10]).tick_values(low, high) for parts in (4, 6, 9)),
    ]
    found = ([float(tick) for tick in ticks if low <= tick <= high] for ticks in choices)
    return next(ticks for ticks in found if len(ticks) >= _FEWEST_TICKS)


def _number(value: float) -> str:
    """A tick label: digits with separators, millions and more with M or G."""
    for unit, suffix in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= unit:
            return f"{value / unit:.10g}{suffix}"
    return f"{value:,.10g}"


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric)


def _plain(text: str) -> str:
    """A value without the quotes of its JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
