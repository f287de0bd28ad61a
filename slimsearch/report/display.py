"""Progress display: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

from slimsearch.progress import current_step, duration, line_shown, shown_elsewhere
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import (
    COMPLETE,
    COMPRESSION,
    FAILED,
    LOST,
    PAUSED,
    REJECTED,
    REPEAT,
    RULED_OUT,
    RUNNING,
    SEARCH,
    STEP,
    STOPPED,
    SUBNET,
    SUPERSEDED,
    WITHDRAWN,
    Trial,
)
from slimsearch.report.live_view import Progress, live_view
from slimsearch.report.recommendation import program
from slimsearch.report.result import Result
from slimsearch.report.run_summary import latency_predictions, savings
from slimsearch.report.tables import (
    best_lines,
    busy_machine_line,
    candidate_text,
    console,
    final_table,
    metrics_text,
    plain,
    recipe_text,
    rejected_lines,
    seed_lines,
    shown,
)


class Display(Protocol):
    """Receives the events of a run."""

    def open(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """A context around the run in `path`."""

    def phase(
        self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking, following: float = 0.0,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        """A phase of up to `length` trials starts; `trials` are already recorded.

        Args:
            name: of the phase.
            length: number of its trials.
            trials: of the run.
            ranking: of the trials.
            following: expected length of the phases that follow, in trials of this phase.
            seconds: expected time of what is neither, such as the measurement of the finalists.
        """

    def update(self, trial: Trial) -> None:
        """A trial has changed."""

    def note(self, text: str) -> None:
        """Show one line of text."""

    def warn(self, text: str) -> None:
        """Show a warning."""

    def result(self, result: Result, ranking: Ranking) -> None:
        """The run is finished."""


class Silent:
    """Shows nothing."""

    def open(self, path: Path) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def phase(
        self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking, following: float = 0.0,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        pass

    def update(self, trial: Trial) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def result(self, result: Result, ranking: Ranking) -> None:
        pass


class _Output:
    """Standard output; when its reader has gone, such as `head` or a terminal, the rest goes to the run's log.

    Attributes:
        log: path of the log; None before there is a run directory.
    """

    def __init__(self) -> None:
        self.log: Path | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: sys.stdout.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(sys.stdout.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            with contextlib.suppress(OSError):
                self._redirect()
                sys.stdout.flush()  # what the reader has not read

    def _redirect(self) -> None:
        """Connect the file descriptor of standard output to the log, or to nothing if it cannot be written."""
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(open(self.log or os.devnull, "ab"))
            except OSError:
                file = opened.enter_context(open(os.devnull, "ab"))
            os.dup2(file.fileno(), sys.stdout.fileno())


class Console:
    """A line for every finished trial; on a terminal also a progress bar and the running trials."""

    def __init__(self) -> None:
        self._output = _Output()
        self._console = console(cast(IO[str], self._output))
        self._phase = ""
        self._length = 0
        self._following = self._seconds = 0.0
        self._began = 0.0
        self._done: set[int] = set()
        self._done_before = 0
        self._trials: dict[int, Trial] = {}
        self._ranking: Ranking | None = None
        self._opened = time.monotonic()
        self._front_of: tuple[int, list[Trial]] = (0, [])

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[None]:
        from rich.live import Live

        self._output.log = path / "log.txt"
        self._print(f"run directory: {plain(shown(path))}")
        if not self._console.is_terminal:
            with line_shown(self._line_of_run):
                yield
            return
        self._print(f"in a browser: slimsearch watch {plain(shlex.quote(shown(path)))}")
        with (
            shown_elsewhere(),
            Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True),
        ):
            yield

    def phase(
        self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking, following: float = 0.0,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self._phase, self._length, self._ranking = name, length, ranking
        self._following, self._seconds = following, seconds
        self._trials = {t.number: t for t in trials}
        self._began = time.monotonic()
        self._done = {t.number for t in trials if self._counts(t)}
        self._done_before = len(self._done)
        if length:
            again = f", {self._done_before} of them already done" if self._done_before else ""
            self._print(f"[bold]{name}[/]: up to {length} trials{again}")

    def update(self, trial: Trial) -> None:
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        if self._counts(trial):
            self._done.add(trial.number)
        if not trial.unfinished and (before is None or before.unfinished):
            self._print_words(self._line(trial))

    def note(self, text: str) -> None:
        self._print(plain(text))

    def warn(self, text: str) -> None:
        self._print(f"[yellow]warning:[/] {plain(text)}")

    def result(self, result: Result, ranking: Ranking) -> None:
        self._console.print(final_table(result.trials, ranking))
        saved = savings(result.trials)
        if saved is not None:
            self._print(plain(str(saved)))
        predicted = latency_predictions(result.trials)
        if predicted is not None:
            self._print(str(predicted))
        busy = busy_machine_line(result.trials)
        if busy is not None:
            self._print(f"[yellow]{busy}[/]")
        lines = best_lines(result.models, ranking) + seed_lines(result.models) + rejected_lines(result.trials)
        for line in lines:
            self._print(plain(line))
        self._console.print("\nTop models:")
        for model in result.models:
            if model["on_front"]:
                recipe = recipe_text(model["recipe"])
                comment = f"  # {recipe}" if recipe else ""
                # A given network has no choices.
                architecture = f"{model['architecture']}{comment}" if model["architecture"] else recipe or "as given"
                self._print(plain(architecture))
        for model in result.models:
            if "recommended" in model:
                self._recommend(result, model)
        folder = plain(shown(result.directory))
        self._print(f"\nmodels:    {folder}/top_models.json")
        self._print(f"report:    {folder}/report.html")
        self._print(f"dashboard: slimsearch dashboard {folder}")

    def _recommend(self, result: Result, model: Mapping[str, Any]) -> None:
        artifact = model["artifact"]
        file = None if artifact is None else shown(result.directory / artifact)
        name = plain(file or f"trial {model['trial']}")
        self._print_words(f"\n[bold]Use {name}[/]: {plain(model['recommended'])}")
        for line in () if file is None else program(file):
            self._print(f"    {plain(line)}")

    def _print_words(self, markup: str) -> None:
        """Print one line, wrapped between words on a terminal."""
        self._console.print(markup, soft_wrap=not self._console.is_terminal)

    def _print(self, markup: str) -> None:
        """Print one line without wrapping, so that commands can be copied."""
        self._console.print(markup, soft_wrap=True)

    def _mine(self) -> list[Trial]:
        return [t for t in self._trials.values() if t.kind == self._kind]

    def _counts(self, trial: Trial) -> bool:
        """Whether a trial counts towards the length of the phase.

        Trials that were ruled out, or whose networks other trials have trained, do not.
        """
        if trial.kind == SEARCH and trial.parent is not None:
            return False
        return trial.kind == self._kind and trial.state not in (RUNNING, PAUSED, RULED_OUT, *SUPERSEDED)

    @property
    def _kind(self) -> str:
        return {"search": SEARCH, "subnets": SUBNET, "repeats": REPEAT, "steps": STEP}.get(self._phase, COMPRESSION)

    def _line(self, trial: Trial) -> str:
        done, total = len(self._done), max(self._length, len(self._done))
        outcome = {
            COMPLETE: metrics_text(trial.metrics),
            FAILED: f"[red]failed[/]: {plain(trial.error or '')}",
            RULED_OUT: f"[yellow]ruled out before training[/]: {plain(trial.reason or '')}",
            STOPPED: f"[dim]stopped early[/]: {plain(trial.reason or '')}",
            LOST: f"[yellow]lost[/]: {plain(trial.error or '')}",
            WITHDRAWN: f"[dim]withdrawn[/]: {plain(trial.reason or '')}",
            REJECTED: f"[yellow]rejected[/]: {plain(trial.reason or '')}",
        }[trial.state]
        if trial.kind == COMPRESSION and trial.state == COMPLETE:
            outcome += f"  [green]kept[/]: {plain(trial.reason or '')}"
        candidate = plain(candidate_text(trial))
        return f"\\[{done}/{total}] trial {trial.number}: {candidate}  {outcome}"

    def _seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run."""
        fresh = len(self._done) - self._done_before
        rest = max(0, self._length - len(self._done)) + self._following
        if fresh <= 0 or rest <= 0:
            return None
        return (time.monotonic() - self._began) / fresh * rest + self._seconds

    def _line_of_run(self) -> str:
        """The progress of the run in one line, for a notebook."""
        left = self._seconds_left()
        parts = [current_step() or f"{self._phase}: {len(self._done)} of {self._length}"]
        parts += [] if left is None else [f"about {duration(left)} left"]
        return ", ".join(parts) if self._length else current_step()

    def _render(self) -> Any:
        if self._ranking is None:
            return ""
        mine = self._mine()
        states = {"running": RUNNING, "failed": FAILED, "ruled out": RULED_OUT}
        counts = {name: sum(t.state == state for t in mine) for name, state in states.items()}
        elapsed = time.monotonic() - self._opened
        progress = Progress(
            self._phase, len(self._done), self._length, counts, elapsed, self._seconds_left(), current_step()
        )
        running = [t for t in mine if t.state == RUNNING]
        return live_view(progress, running, self._front(), self._ranking)

    def _front(self) -> list[Trial]:
        """The front of the finished trials, the best in the first objective first."""
        if self._ranking is None:
            return []
        finished = len([t for t in self._trials.values() if not t.unfinished])
        if finished != self._front_of[0]:
            first = self._ranking.objectives[0]
            front = self._ranking.front(list(self._trials.values()))
            self._front_of = finished, sorted(front, key=lambda t: (first.loss(t.metrics), t.number))
        return self._front_of[1]
