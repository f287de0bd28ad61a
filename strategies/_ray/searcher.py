"""The search as a searcher of Ray Tune: what Tune asks of it, and what comes back to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Outcome, Task
from slimsearch.strategies._ray.metrics import Metrics
from slimsearch.strategies._ray.post import Handle, Report
from slimsearch.strategies._ray.proposals import Proposals
from slimsearch.strategies._ray.trial import EVENT, TASK, OutOfMemory
from slimsearch.strategies._strategy import Failure, Search

_log = logging.getLogger(__name__)

# So many proposals in a row that lead to nothing new end the search.
_PATIENCE = 200


class TaskSearcher(Searcher):
    """Hands the search's tasks to Tune as configurations, and Tune's results to the search.

    Where memory runs out on a node, Ray kills what it finds there, not always what took it all. A task that was lost so
    is kept until there is nothing else to do, and then runs by itself: if it is lost once more, it has failed.

    Args:
        search: asked and told from Tune's loop, which is in one thread.
        post: through which the answers to reports go.
        limit: tasks at the same time. What is proposed later knows more.
        metrics: told of everything that happens.
        node_lost: whether the driver's own node is: then no trial is to blame for its end.
        proposals: a searcher of Tune's that proposes in place of the search; None: the search proposes.

    Attributes:
        ended: the search has nothing left and nothing is running.
        error: what the search raised; nothing further is asked of it then.
    """

    def __init__(
        self, search: Search, post: Handle, limit: int, metrics: Metrics, node_lost: Callable[[], bool],
        proposals: Proposals | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._search, self._post, self._limit, self._metrics = search, post, limit, metrics
        self._node_lost = node_lost
        self._proposals = proposals
        self._proposed = 0
        self._fruitless = 0
        self._seen: set[str] = set()
        self._asking: dict[int, str] = {}  # trial -> the proposal that it answers
        self._failed: set[int] = set()  # trials that failed, unless the search hands them out once more
        self._running: dict[str, Task] = {}
        self._short_of_memory: set[int] = set()  # trials that were lost so, and are to run by themselves
        self._kept: list[Task] = []  # of these, what the search has handed out again
        self._alone = False  # what is running runs by itself
        self.ended = False
        self.error: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it, to restore experiments: what is restored here is the run.
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSearcher:
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """A configuration, None for nothing now, or that it is finished."""
        self._metrics.refresh()
        if self.error is not None or self.ended:
            return str(Searcher.FINISHED)
        if len(self._running) >= self._limit or self._alone:
            return None
        try:
            task = self._next()
        except BaseException as error:
            self.error = error
            return str(Searcher.FINISHED)
        if task is None and self._kept and not self._running:
            task = self._kept.pop(0)
            self._alone = True
        if task is not None:
            self._running[trial_id] = task
            self._metrics.begin(task)
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
        self._metrics.report(task, report.epoch, report.metrics)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a task; without a result its actor was lost."""
        task = self._running.pop(trial_id, None)
        if task is None or self.error is not None:
            return
        event = (result or {}).get(EVENT) if not error else None
        if isinstance(event, OutOfMemory):
            event = self._out_of_memory(task)
        if not isinstance(event, Outcome | Failure):
            event = Failure("its Ray actor was lost", worker_died=True, blameless=True)
        self._alone = False
        self._metrics.end(task, event)
        if isinstance(event, Failure) and event.worker_died and self._node_lost():
            self.error = SlimsearchError(
                "this machine's Ray node (its raylet) was lost; what was finished is kept, go on with --resume"
            )
            return
        try:
            self._search.tell(task.number, event)
            self._answer(task.number, failed=isinstance(event, Failure))
        except BaseException as raised:
            self.error = raised

    def lost(self) -> None:
        """Tune has come to an end in the middle: what was running is lost with it, by no fault of its own."""
        for trial_id in list(self._running):
            self.on_trial_complete(trial_id, error=True)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study of the run is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def _next(self) -> Task | None:
        while True:
            task = self._search.ask() or self._offered()
            if task is None:
                return None
            self._failed.discard(task.number)
            if task.number not in self._short_of_memory:
                return task
            self._kept.append(task)

    def _out_of_memory(self, task: Task) -> Failure:
        if self._alone:
            self._short_of_memory.discard(task.number)
            return Failure("its node ran out of memory, with no other trial beside it")
        self._short_of_memory.add(task.number)
        return Failure("its node ran out of memory", worker_died=True, blameless=True)

    def _answer(self, number: int, *, failed: bool) -> None:
        """What a trial came to goes to who proposed it; a paused one has no losses yet, and may have some later."""
        if self._proposals is None or number not in self._asking:
            return
        losses = self._search.losses(number)
        if losses is not None:
            self._proposals.tell(self._asking.pop(number), losses)
        elif failed:
            self._failed.add(number)

    def _offered(self) -> Task | None:
        """A task from what is proposed; the search had none, so that what has failed has failed for good."""
        if self._proposals is None:
            return None
        for number in self._failed:
            self._proposals.tell(self._asking.pop(number), None)
        self._failed.clear()
        while self._fruitless < _PATIENCE:
            key = f"proposal-{self._proposed}"
            try:
                point = self._proposals.next(key)
            except StopIteration:
                return self._closed()
            if point is None:
                return None
            self._proposed += 1
            try:
                answer = self._search.offer(point)
            except SlimsearchError:  # it does not see the space's own rules
                self._fruitless += 1
                self._proposals.tell(key, None)
                continue
            if answer is None:
                return self._closed()
            if isinstance(answer, Task):
                self._fruitless = 0
                self._seen.add(json.dumps(point, sort_keys=True))
                self._asking[answer.number] = key
                return answer
            text = json.dumps(point, sort_keys=True)
            # What an earlier part of this run has recorded is new to a searcher that begins anew.
            self._fruitless = self._fruitless + 1 if text in self._seen else 0
            self._seen.add(text)
            self._proposals.tell(key, answer.losses)
        if self._running:  # what comes of it may lead elsewhere
            self._fruitless = 0
            return None
        _log.warning("%s ends: its last %d proposals were nothing new", self._proposals.name, _PATIENCE)
        return self._closed()

    def _closed(self) -> Task | None:
        """The proposals are over, the search may have something else to do."""
        self._proposals = None
        self._search.close()
        return self._search.ask()
