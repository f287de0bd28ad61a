"""Loggers for ``--log``, one per file: TensorBoard and MLflow.

The class of a logger is named like its file. It is a `Display`, constructed with the configuration of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slimsearch.errors import describe_error
from slimsearch.names import load_class
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.trial import Trial
from slimsearch.report.display import Display
from slimsearch.report.result import Result

PACKAGE = "slimsearch.report.loggers"


def with_loggers(display: Display, configuration: Configuration) -> Display:
    """A display that also writes to the loggers of ``--log``.

    Raises:
        SlimsearchError: there is no logger of that name.
    """
    names = [name.strip() for name in (configuration.log or "").split(",") if name.strip()]
    loggers = [(name, load_class("logger", name, PACKAGE)(configuration)) for name in names]
    return _DisplayWithLoggers(display, loggers) if loggers else display


class _DisplayWithLoggers:
    """Forwards events to the display and to the loggers; a logger that fails is dropped with a warning."""

    def __init__(self, display: Display, loggers: Sequence[tuple[str, Display]]) -> None:
        self._display = display
        self._loggers = list(loggers)

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[None]:
        with self._display.open(path), contextlib.ExitStack() as opened:
            for name, logger in list(self._loggers):
                try:
                    opened.enter_context(logger.open(path))
                except Exception as error:  # a logger may raise anything
                    self._drop(name, logger, error)
            yield

    def phase(
        self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking, following: float = 0.0,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self._display.phase(name, length, trials, ranking, following, seconds)
        self._forward(lambda logger: logger.phase(name, length, trials, ranking))

    def update(self, trial: Trial) -> None:
        self._display.update(trial)
        self._forward(lambda logger: logger.update(trial))

    def note(self, text: str) -> None:
        self._display.note(text)

    def warn(self, text: str) -> None:
        self._display.warn(text)

    def result(self, result: Result, ranking: Ranking) -> None:
        self._forward(lambda logger: logger.result(result, ranking))
        self._display.result(result, ranking)

    def _forward(self, call: Callable[[Display], None]) -> None:
        for name, logger in list(self._loggers):
            try:
                call(logger)
            except Exception as error:  # a logger may raise anything
                self._drop(name, logger, error)

    def _drop(self, name: str, logger: Display, error: Exception) -> None:
        self._loggers.remove((name, logger))
        self._display.warn(f"--log {name} failed and is switched off: {describe_error(error)}")
