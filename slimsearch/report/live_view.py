"""Live view of a run on a terminal: progress, the trials that are running, and the front so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimsearch.errors import escaped
from slimsearch.evaluators import leading_metric
from slimsearch.progress import duration
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import Trial
from slimsearch.report.tables import candidate_text, metric_cells, metric_columns

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_FRONT_ROWS = 6
_USUAL = ("val_accuracy", "latency_ms", "size_kib")


@dataclass(frozen=True)
class Progress:
    """Progress of the current phase.

    Attributes:
        phase: its name.
        done, total: trials.
        counts: number of trials by state, such as "failed", without zeros.
        elapsed: seconds since the start of this process.
        left: estimated seconds to the end of the run; None if unknown.
        step: a long step besides the trials, such as the measurement of the finalists.
    """

    phase: str
    done: int
    total: int
    counts: Mapping[str, int]
    elapsed: float
    left: float | None
    step: str = ""


def live_view(progress: Progress, running: Sequence[Trial], front: Sequence[Trial], ranking: Ranking) -> RenderableType:
    """Progress in one line, then a table of the running trials and the first members of the front.

    Numbers are never cut or wrapped; candidates end in an ellipsis where the terminal is too narrow.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 1))
    head.add_column(no_wrap=True)
    head.add_column()
    head.add_column(no_wrap=True)
    counts = [f"{number} {state}" for state, number in progress.counts.items() if number]
    times = [f"{duration(progress.elapsed)} elapsed"]
    if progress.left is not None:
        times.append(f"about {duration(progress.left)} left")
    bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=12)
    head.add_row(progress.phase, bar, f"{progress.done}/{progress.total}")
    parts: list[Any] = [head, Text(", ".join([*counts, *times]), no_wrap=True, overflow="ellipsis")]
    if progress.step:
        parts.append(Text(progress.step, no_wrap=True, overflow="ellipsis"))
    if running or front:
        parts.append(_table(running, front, ranking))
    return Group(*parts)


def _table(running: Sequence[Trial], front: Sequence[Trial], ranking: Ranking) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    columns = metric_columns([trial.metrics for trial in front], ranking.objectives) if front else {}
    wanted = {*_USUAL, *(objective.metric for objective in ranking.objectives)}
    columns = {name: cell for name, cell in columns.items() if name in wanted}
    table.add_column("", no_wrap=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    # Only columns that may wrap are narrowed; the texts below do not wrap.
    table.add_column("candidate", min_width=9)
    for trial in running:
        table.add_row("running", str(trial.number), _epochs(trial), *_curve(trial, columns), _name(trial))
    for trial in front[:_FRONT_ROWS]:
        cells = metric_cells(trial.metrics, columns)
        table.add_row(Text("front", style="bold"), str(trial.number), "", *cells, _name(trial))
    if len(front) > _FRONT_ROWS:
        table.add_row("more", f"+{len(front) - _FRONT_ROWS}", "", *[""] * len(columns), "")
    return table


def _name(trial: Trial) -> Any:
    from rich.text import Text

    return Text(escaped(candidate_text(trial)), no_wrap=True, overflow="ellipsis")


def _epochs(trial: Trial) -> str:
    # The epochs of compression follow those of the training.
    done, epochs = trial.epochs_done, trial.fidelity
    return f"{done}/{epochs}" if 0 < epochs >= done else str(done)


def _curve(trial: Trial, columns: Mapping[str, tuple[str, str]]) -> list[str]:
    """The leading metric of the last epoch, below its heading."""
    last = trial.curve[-1] if trial.curve else {}
    leading = leading_metric(last)
    return [
        metric_cells(last, {name: cell})[0] if name == leading and name in last else ""
        for name, cell in columns.items()
    ]
