"""Several who are told of what happens in a run: the display, and loggers, whose trouble is not the run's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slimsearch.errors import describe_error
from slimsearch.names import load_class
from slimsearch.options.configuration import Configuration
from slimsearch.record.ranking import Ranking
from slimsearch.record.result import Result
from slimsearch.record.trial import Trial
from slimsearch.report.display import Display

PACKAGE = "slimsearch.report.loggers"


def watched(display: Display, configuration: Configuration) -> Display:
    """`display`, and beside it the loggers of ``--log``.

    Raises:
        SlimsearchError: there is no such logger.
    """
    names = [name.strip() for name in (configuration.log or "").split(",") if name.strip()]
    loggers = [(name, load_class("logger", name, PACKAGE)(configuration)) for name in names]
    return _Together(display, loggers) if loggers else display


class _Together:
    """Tells the display first; a logger that fails is told nothing more, and a line says so."""

    def __init__(self, display: Display, loggers: Sequence[tuple[str, Display]]) -> None:
        self._display = display
        self._loggers = list(loggers)

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[None]:
        with self._display.open(path), contextlib.ExitStack() as opened:
            for name, logger in list(self._loggers):
                try:
                    opened.enter_context(logger.open(path))
                except Exception as error:  # every tool has its own
                    self._lost(name, logger, error)
            yield

    def phase(self, name: str, length: int, trials: Sequence[Trial], ranking: Ranking) -> None:
        self._display.phase(name, length, trials, ranking)
        self._tell(lambda logger: logger.phase(name, length, trials, ranking))

    def update(self, trial: Trial) -> None:
        self._display.update(trial)
        self._tell(lambda logger: logger.update(trial))

    def note(self, text: str) -> None:
        self._display.note(text)

    def warn(self, text: str) -> None:
        self._display.warn(text)

    def result(self, result: Result, ranking: Ranking) -> None:
        self._tell(lambda logger: logger.result(result, ranking))
        self._display.result(result, ranking)

    def _tell(self, tell: Callable[[Display], None]) -> None:
        for name, logger in list(self._loggers):
            try:
                tell(logger)
            except Exception as error:  # every tool has its own
                self._lost(name, logger, error)

    def _lost(self, name: str, logger: Display, error: Exception) -> None:
        self._loggers.remove((name, logger))
        self._display.warn(f"--log {name} is told nothing more: {describe_error(error)}")
