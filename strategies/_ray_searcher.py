"""The search as a searcher of Ray Tune: what Tune asks of it, and what comes back to it."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from evaluators import Outcome, Task
from strategies._ray_post import Handle, Report
from strategies._ray_trial import EVENT, TASK
from strategies._strategy import Failure, Search


class TaskSearcher(Searcher):
    """Hands the search's tasks to Tune as configurations, and Tune's results to the search.

    Args:
        search: asked and told from Tune's loop, which is in one thread.
        post: through which the answers to reports go.
        limit: tasks at the same time. What is proposed later knows more.

    Attributes:
        ended: the search has nothing left and nothing is running.
        error: what the search raised; nothing further is asked of it then.
    """

    def __init__(self, search: Search, post: Handle, limit: int) -> None:
        super().__init__()
        self._search, self._post, self._limit = search, post, limit
        self._running: dict[str, Task] = {}
        self.ended = False
        self.error: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it, to restore experiments: what is restored here is the run.
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSearcher:
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """A configuration, None for nothing now, or that it is finished."""
        if self.error is not None or self.ended:
            return str(Searcher.FINISHED)
        if len(self._running) >= self._limit:
            return None
        try:
            task = self._search.ask()
        except BaseException as error:
            self.error = error
            return str(Searcher.FINISHED)
        if task is not None:
            self._running[trial_id] = task
            return {TASK: task}
        if self._running:
            return None
        self.ended = True
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A report: it waits for an answer."""
        report, task = result.get(EVENT), self._running.get(trial_id)
        if task is None or not isinstance(report, Report):
            return
        go_on = False
        try:
            go_on = self._search.report(task.number, report.epoch, report.metrics)
        except BaseException as error:
            self.error = error
        self._post.answer.remote(report.key, go_on)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a task; without a result its actor was lost."""
        task = self._running.pop(trial_id, None)
        if task is None or self.error is not None:
            return
        event = (result or {}).get(EVENT) if not error else None
        if not isinstance(event, Outcome | Failure):
            event = Failure("its Ray actor was lost", worker_died=True)
        try:
            self._search.tell(task.number, event)
        except BaseException as raised:
            self.error = raised

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study of the run is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""
