"""Energy per call, from the energy counters of the processor packages.

Linux has them in its powercap framework: RAPL of Intel and AMD, domains ``package-0`` and so on, without memory and the
rest of the machine. They count what all processes consume, so a block of calls is charged with what the packages
consumed less what they consume in the same time when this process sleeps, measured before and after the block.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators.deployed.deployed_model import DeployedModel
from slimsearch.evaluators.latency.measurement import MeasurementSettings, median_interval
from slimsearch.evaluators.latency.meter import Meter
from slimsearch.evaluators.latency.reference import pinned
from slimsearch.progress import counted

ROOT = Path("/sys/class/powercap")
"""Where Linux has the counters."""

# A block is long compared with the millisecond between two updates of a counter.
_ROUNDS, _BLOCK_SECONDS = 9, 0.1


@dataclass(frozen=True)
class Energy:
    """Millijoules per call.

    Attributes:
        median_mj: the median of the rounds; noise can make that of a small network negative.
        low_mj, high_mj: its 95% interval from the order statistics of the rounds.
    """

    median_mj: float
    low_mj: float
    high_mj: float

    def metrics(self) -> dict[str, float]:
        """As metrics: ``energy_mj`` and others."""
        return {"energy_mj": self.median_mj, "energy_mj_low": self.low_mj, "energy_mj_high": self.high_mj}


class PackageCounters:
    """The energy counters of all processor packages.

    Args:
        root: see `ROOT`, which is the default.

    Raises:
        SlimsearchError: there are none, or they cannot be read.
    """

    def __init__(self, root: Path | None = None) -> None:
        root = ROOT if root is None else root
        pattern, found = root / "intel-rapl:*" / "energy_uj", list[Path]()
        try:
            for domain in sorted(root.glob("intel-rapl:*")):
                if (domain / "name").read_text(encoding="ascii").startswith("package"):
                    found.append(domain)
            self._ranges = [int((domain / "max_energy_range_uj").read_text(encoding="ascii")) for domain in found]
            self._files = [domain / "energy_uj" for domain in found]
            self._last = [int(file.read_text(encoding="ascii")) for file in self._files]
        except PermissionError:
            raise SlimsearchError(
                f"energy_mj: only root can read the energy counters of this machine; sudo chmod a+r {pattern} lets all "
                "read them until the next boot"
            ) from None
        except (OSError, ValueError) as error:
            raise SlimsearchError(
                f"energy_mj: the energy counters '{pattern}' are damaged: {first_line(error)}"
            ) from None
        if not found:
            raise SlimsearchError(
                f"energy_mj: this machine has no readable energy counter: {pattern}, which Linux has on Intel and AMD "
                "processors, and virtual machines usually have not"
            )
        self._joules = 0.0

    def joules(self) -> float:
        """Joules since the counters were opened. To be called before any of them has wrapped around twice."""
        for position, file in enumerate(self._files):
            now = int(file.read_text(encoding="ascii"))
            difference = now - self._last[position]
            self._joules += (difference + self._ranges[position] * (difference < 0)) / 1e6
            self._last[position] = now
        return self._joules


def measure_energy(
    paths: Sequence[Path], settings: MeasurementSettings, meter: Meter, counters: PackageCounters | None = None
) -> list[Energy]:
    """Measure the energy of files, in turns, while `meter` pauses the other processes of Slimsearch.

    Raises:
        SlimsearchError: a file cannot be loaded, or there are no counters.
    """
    images = np.random.default_rng(0).standard_normal((settings.batch, *settings.input_shape), dtype=np.float32)
    with meter.exclusive(), pinned(settings.threads):
        models = [DeployedModel(path, settings.threads, settings.runtime) for path in paths]
        calls = [functools.partial(model, images) for model in models]
        return energy_of(calls, counters or PackageCounters(), _ROUNDS, _BLOCK_SECONDS)


def energy_of(
    calls: Sequence[Callable[[], object]], counters: PackageCounters, rounds: int, seconds: float
) -> list[Energy]:
    """The energy of functions: in each round, `seconds` of calls of each, in turns with as much sleep."""

    def block(call: Callable[[], object]) -> tuple[int, float, float]:
        """Number of calls, joules and seconds."""
        joules, start, count = counters.joules(), time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call()
            count += 1
        return count, counters.joules() - joules, time.perf_counter() - start

    def idle_watts() -> float:
        _, joules, lasted = block(lambda: time.sleep(seconds))
        return joules / lasted

    found: list[list[float]] = [[] for _ in calls]
    for _ in counted(f"measuring the energy of {len(calls)} files", range(rounds), rounds):
        before = idle_watts()
        for call, own in zip(calls, found, strict=True):
            call()
            count, joules, lasted = block(call)
            after = idle_watts()
            own.append((joules - (before + after) / 2 * lasted) / count * 1000)
            before = after
    return [Energy(float(np.median(own)), *median_interval(sorted(own))) for own in found]
