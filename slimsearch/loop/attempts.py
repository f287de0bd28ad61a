"""Which trials are tried again after their worker, or its machine, was lost."""

from __future__ import annotations

from slimsearch.errors import SlimsearchError
from slimsearch.strategies import Failure

# A trial that is lost with so many machines may be what takes them down.
_LOST_MACHINES = 10


class Attempts:
    """Which trials are tried again: those whose worker died, up to `retries` times each.

    A machine that is lost takes its trials along, and may do so again before anybody knows that it is gone: that counts
    by itself.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._lost: dict[int, int] = {}
        self._with_machines: dict[int, int] = {}

    def another(self, number: int, failure: Failure) -> bool:
        """Whether the trial that failed so is to be tried again.

        Raises:
            SlimsearchError: no other trial could succeed either; this one is run again when the run is resumed.
        """
        if failure.unwritable:
            raise SlimsearchError(f"{failure.error}; what was finished is kept, go on with --resume")
        if failure.blameless:
            self._with_machines[number] = self._with_machines.get(number, 0) + 1
            return self._with_machines[number] <= _LOST_MACHINES
        self._lost[number] = self._lost.get(number, 0) + 1
        return failure.worker_died and self._lost[number] <= self._retries
