"""How a task on a Ray cluster talks with the driver: reports one way, answers the other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """Progress of a task, which waits for an answer under its key."""

    key: str
    epoch: int
    metrics: Mapping[str, float]


class Post:
    """An actor of the run, with a box for reports and one for answers for each task."""

    def __init__(self) -> None:
        self._reports: dict[str, asyncio.Queue[Report | None]] = defaultdict(asyncio.Queue)
        self._answers: dict[str, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)

    async def begin(self, key: str) -> None:
        """The task has a process and begins."""
        await self._reports[key].put(None)

    async def report(self, report: Report) -> bool:
        """Leave a report and wait for its answer: whether to go on."""
        await self._reports[report.key].put(report)
        return await self._answers[report.key].get()

    async def next(self, key: str) -> Report | None:
        """Wait for the next report; the first is None, when the task begins."""
        return await self._reports[key].get()

    async def answer(self, key: str, go_on: bool) -> None:
        """Let the task go on, or tell it to stop."""
        await self._answers[key].put(go_on)

    async def forget(self, key: str) -> None:
        """The task has ended: whoever still waits goes on, or the actor would have more and more that wait."""
        if reports := self._reports.pop(key, None):
            reports.put_nowait(None)
        if answers := self._answers.pop(key, None):
            answers.put_nowait(False)


Handle = Any
"""Of the actor: Ray's have no type."""
