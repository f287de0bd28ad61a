"""The timeline of a run: when each trial ran, in lanes of parallel trials."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from slimsearch.record.trial import RULED_OUT, RUNNING, WITHDRAWN, Trial

# The shortest pause between a stop and a resume: in seconds, and as a share of the running time.
_LEAST_PAUSE, _PAUSE = 60.0, 0.05


@dataclass(frozen=True)
class Clock:
    """The running time of a run in seconds, without the pauses between a stop and a resume.

    Attributes:
        began: start of the first trial, in seconds since 1970.
        pauses: (start, end) of each, in seconds since 1970.
    """

    began: float
    pauses: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Clock:
        """The clock of the run with these `trials`."""
        spans = sorted(span for trial in trials if (span := _span(trial, 0.0)) is not None)
        if not spans:
            return cls(0.0)
        end, busy, gaps = spans[0][0], 0.0, []
        for start, stop in spans:
            if start > end:
                gaps.append((end, start))
            busy += max(0.0, stop - max(start, end))
            end = max(end, stop)
        least = max(_LEAST_PAUSE, _PAUSE * busy)
        return cls(spans[0][0], tuple(gap for gap in gaps if gap[1] - gap[0] > least))

    def __call__(self, moment: float) -> float:
        """The running time at a moment in seconds since 1970."""
        paused = sum(min(moment, end) - start for start, end in self.pauses if start < moment)
        return max(0.0, moment - self.began - paused)

    @property
    def breaks(self) -> list[float]:
        """Running times at which the run paused."""
        return [self(start) for start, _ in self.pauses]


@dataclass(frozen=True)
class Bar:
    """A trial from start to end, including waiting.

    Attributes:
        trial: its number.
        start, end: by the run's clock.
        lane: its index; trials in a lane do not overlap.
    """

    trial: int
    start: float
    end: float
    lane: int


@dataclass(frozen=True)
class Timeline:
    """All trials of a run over its running time.

    Attributes:
        bars: by start.
        lanes: their names; they are not workers, which are not recorded.
        busy: share of the lanes' time in which they had a trial.
        breaks: running times at which the run paused.
    """

    bars: tuple[Bar, ...]
    lanes: tuple[str, ...]
    busy: float
    breaks: tuple[float, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Timeline:
        """Arrange trials in the fewest possible lanes, separately for each driver."""
        clock = Clock.of(trials)
        latest = max((span[1] for t in trials if (span := _span(t, 0.0)) is not None), default=0.0)
        hosts = list(dict.fromkeys(t.driver or "" for t in trials))
        names = {t.driver or "": t.host or "" for t in trials}
        bars: list[Bar] = []
        lanes: list[str] = []
        for driver in hosts:
            free: list[int] = []
            taken: list[tuple[float, int]] = []
            spans = [(span, t.number) for t in trials if (t.driver or "") == driver and (span := _span(t, latest))]
            first = len(lanes)
            for (start, end), number in sorted(spans):
                while taken and taken[0][0] <= start:
                    heapq.heappush(free, heapq.heappop(taken)[1])
                if not free:
                    position = len(lanes) - first + 1
                    lanes.append(f"{names[driver]}: {position}" if len(hosts) > 1 else str(position))
                    heapq.heappush(free, len(lanes) - 1)
                lane = heapq.heappop(free)
                heapq.heappush(taken, (end, lane))
                bars.append(Bar(number, clock(start), clock(end), lane))
        bars.sort(key=lambda bar: (bar.start, bar.lane))
        whole = max((bar.end for bar in bars), default=0.0) * len(lanes)
        busy = sum(bar.end - bar.start for bar in bars) / whole if whole > 0 else 0.0
        return cls(tuple(bars), tuple(lanes), busy, tuple(clock.breaks))


def _span(trial: Trial, latest: float) -> tuple[float, float] | None:
    """Start and end in seconds since 1970; None for a trial that did not run, or whose end is unknown."""
    if trial.state in (RULED_OUT, WITHDRAWN) or trial.started <= 0:
        return None
    if trial.ended <= 0:
        return (trial.started, max(latest, trial.started)) if trial.state == RUNNING else None
    # The clock of the machine may have been set back.
    return trial.started, trial.ended if trial.ended >= trial.started else trial.started + trial.seconds
