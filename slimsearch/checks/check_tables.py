"""Tables and plots of a space check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slimsearch.checks.duration import Duration
from slimsearch.checks.space_check import SpaceCheck
from slimsearch.errors import SlimsearchError
from slimsearch.options.configuration import Configuration
from slimsearch.report.tables import console, plain, seconds_text

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 24
_UNITS = {
    "params": "parameters", "macs": "MACs", "latency_ms": "predicted latency (ms)", "size_kib": "size (KiB)",
    "ram_kib": "RAM (KiB)", "flash_kib": "flash (KiB)",
}  # fmt: skip
_MEASURED = "measured latency (ms)"
_FORMS = {
    "params": "{:,.0f}", "macs": "{:,.0f}", "latency_ms": "{:.3g}", "size_kib": "{:,.1f}", "ram_kib": "{:,.1f}",
    "flash_kib": "{:,.1f}",
}  # fmt: skip


def show(found: SpaceCheck, duration: Duration | None, configuration: Configuration) -> None:
    """Print the result of ``slimsearch check``."""
    from rich.table import Table

    out = console()
    count = "" if found.different is None else f", {found.different:,} different networks"
    name = plain(configuration.model or configuration.space)
    out.print(f"{name}: {found.combinations:,} combinations of {len(found.choices)} choices{count}")
    table = Table()
    for heading in ("choice", "values", "layers", "active in", "remark"):
        table.add_column(heading, justify="right" if heading in ("layers", "active in") else "left", overflow="fold")
    for choice in found.choices:
        remark = "changes nothing" if choice.dead else "never active" if not choice.active else ""
        values = ", ".join(map(str, choice.values[:12])) + (", ..." if len(choice.values) > 12 else "")
        table.add_row(plain(choice.label), plain(values), str(choice.layers), f"{100 * choice.active:.0f}%", remark)
    out.print(table)
    out.print(f"{found.works} of {found.sampled} random networks can be built and run")
    for failure in found.failures:
        always = " and ".join(f"{label}={value}" for label, value in failure.always.items())
        reason = f": exactly those with {always}" if always else ""
        out.print(plain(f"{failure.count} cannot{reason}: {failure.message}"), style="red")
    measured = configuration.device_host is not None or configuration.runtime != "onnxruntime"
    costs = Table()
    for heading in ("cost", "minimum", "median", "maximum", "distribution"):
        costs.add_column(heading, justify="left" if heading in ("cost", "distribution") else "right")
    for name, costs_of in found.costs.items():
        if costs_of:
            three = (min(costs_of), float(np.median(costs_of)), max(costs_of))
            unit = _MEASURED if name == "latency_ms" and measured else _UNITS[name]
            costs.add_row(unit, *map(_FORMS[name].format, three), _bars(costs_of))
    if any(found.costs.values()):
        out.print(costs)
    for note in found.notes:
        out.print(plain(note))
    for limit, share in found.within_limits.items():
        out.print(f"{limit}: {100 * share:.0f}% of the networks are within this limit")
    if duration is not None:
        out.print(
            f"a trial of {configuration.epochs} epochs takes about {seconds_text(duration.trial)} here; "
            f"{duration.trials} of them with {configuration.worker_count} workers about "
            f"{seconds_text(duration.search)} ({seconds_text(duration.low)} to {seconds_text(duration.high)}), and the "
            f"compression of the best {configuration.top_k} about {seconds_text(duration.compression)} "
            f"({duration.tried} networks were trained for a few steps)"
        )


def draw(found: SpaceCheck, path: Path) -> None:
    """Plot the distributions of costs to `path`, PNG or SVG by its suffix.

    Raises:
        SlimsearchError: there is nothing to draw.
    """
    from matplotlib.figure import Figure

    costs = {name: values for name, values in found.costs.items() if values}
    if not costs:
        raise SlimsearchError("there is nothing to draw: no network runs")
    figure = Figure(figsize=(4 * len(costs), 3), layout="constrained")
    for column, (name, values) in enumerate(costs.items(), start=1):
        axes = figure.add_subplot(1, len(costs), column)
        axes.hist(values, bins=_BINS)
        axes.set_xlabel(_UNITS[name])
        axes.set_ylabel("networks")
    figure.savefig(path)


def _bars(values: Sequence[float]) -> str:
    counts, _ = np.histogram(values, bins=_BINS)
    highest = counts.max()
    return "".join(_BARS[int(np.ceil(count / highest * (len(_BARS) - 1)))] for count in counts)
