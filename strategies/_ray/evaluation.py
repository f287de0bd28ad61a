"""The evaluation of one task on a Ray cluster, as a Ray task of its own, and the mailbox between it and the driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimsearch.errors import describe_error
from slimsearch.evaluators import Evaluator, Outcome, Task, use_one_thread
from slimsearch.strategies._pool import worker as _worker
from slimsearch.strategies._ray.run_files import ActorHandle, NodeFolder, Uploader, pack
from slimsearch.strategies._strategy import Failure

PROCESS = {"env_vars": {"SLIMSEARCH_TRIALS": "1"}}
"""The environment of processes for trials, so that no actor of Tune's takes one that has been warmed up."""

# The evaluator of the last run that this process worked for, and its packed bytes.
_cached: tuple[bytes, Evaluator] | None = None


@dataclass(frozen=True)
class EpochReport:
    """A finished epoch of a task, which waits for the answer under its key."""

    key: str
    epoch: int
    metrics: Mapping[str, float]


class Mailbox:
    """An actor through which running tasks and the driver talk: for each task a queue of reports and one of answers."""

    def __init__(self) -> None:
        self._reports: dict[str, asyncio.Queue[EpochReport | None]] = defaultdict(asyncio.Queue)
        self._answers: dict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)

    async def begin(self, key: str) -> None:
        """The task has a process and begins."""
        await self._reports[key].put(None)

    async def report(self, report: EpochReport) -> bool:
        """Leave a report and wait for its answer: whether to go on."""
        await self._reports[report.key].put(report)
        return await self._answers[report.key].get()

    async def next(self, key: str) -> EpochReport | None:
        """Wait for the next report; the first is None, when the task begins."""
        return await self._reports[key].get()

    async def answer(self, key: str, go_on: bool) -> None:
        """Let the task go on, or tell it to stop."""
        await self._answers[key].put(go_on)

    async def forget(self, key: str) -> None:
        """The task has ended: release the calls that still wait for it."""
        if reports := self._reports.pop(key, None):
            reports.put_nowait(None)
        if answers := self._answers.pop(key, None):
            answers.put_nowait(False)


@dataclass(frozen=True)
class RunContext:
    """What all tasks of a run have in common, as it travels to the nodes.

    Attributes:
        name: of the run.
        imports: the driver's `sys.path`, for modules that travel by name.
        evaluator: packed, see `pack`.
        folder: of its files.
        mailbox: to the driver.
    """

    name: str
    imports: tuple[str, ...]
    evaluator: bytes
    folder: NodeFolder
    mailbox: ActorHandle

    @classmethod
    def of(cls, name: str, evaluator: Evaluator, folder: NodeFolder, mailbox: ActorHandle) -> RunContext:
        """The run of this driver."""
        return cls(name, tuple(entry for entry in sys.path if entry), pack(evaluator, folder.root), folder, mailbox)


def evaluate(run: RunContext, task: bytes, title: str, key: str) -> Outcome | Failure:
    """The outcome of a packed task; its reports go to the mailbox under `key`, and as lines to this process's log.

    Args:
        run: its evaluator is cached in this process, with the data that it has read.
        task: packed, see `pack`.
        title: of the task, for the log.
        key: of the task in the mailbox.
    """
    use_one_thread()
    print(f"{title} begins", flush=True)
    run.mailbox.begin.remote(key)
    try:
        evaluator = _evaluator(run)
    except Exception as error:  # what belongs to the user may not load here
        return Failure(f"a worker cannot load the evaluator: {describe_error(error)}")
    here: Task = run.folder.load(task, own=lambda loaded: loaded.directory)
    uploader = run.folder.uploader(here.directory)
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as log:  # before it is redirected to the task's log
        result = _worker.evaluated(evaluator, here, _Reporter(run.mailbox, key, here, uploader, log))
    if uploader is not None:
        uploader.send()
    said = result.error if isinstance(result, Failure) else _text(result.metrics)
    print(f"trial {here.number} ended: {said}", flush=True)
    return result


def warm_up(run: RunContext) -> None:
    """Load the evaluator in this process before it is needed, with all that it imports."""
    use_one_thread()
    with contextlib.suppress(Exception):  # the trials will report it
        _evaluator(run)


def _evaluator(run: RunContext) -> Evaluator:
    global _cached
    if _cached is None or _cached[0] != run.evaluator:
        sys.path += [entry for entry in run.imports if entry not in sys.path]
        _cached = run.evaluator, run.folder.load(run.evaluator)
    return _cached[1]


def name(run: str, task: Task) -> str:
    """The name of a trial's Ray task: the run, the trial's number and its candidate."""
    values = " ".join(f"{label}={value}" for label, value in task.candidate.architecture.items())
    recipe = "".join(f" + {stage}" for stage in task.candidate.recipe)
    return f"{f'{run}, ' if run else ''}trial {task.number}: {values}{recipe}"


class _Reporter:
    def __init__(self, mailbox: ActorHandle, key: str, task: Task, uploader: Uploader | None, log: Any) -> None:
        self._mailbox, self._key, self._task, self._uploader, self._log = mailbox, key, task, uploader, log

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        import ray

        print(f"trial {self._task.number}, epoch {epoch}: {_text(metrics)}", file=self._log)
        if self._uploader is not None:
            self._uploader.send()  # with the checkpoint, from which the trial goes on if this node is lost
        return bool(ray.get(self._mailbox.report.remote(EpochReport(self._key, epoch, dict(metrics)))))


def _text(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
