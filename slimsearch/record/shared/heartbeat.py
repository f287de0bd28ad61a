"""Signs of life of the trials of this driver, by which others know that they need not take them over."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that records a heartbeat of every trial in it, while this object is open.

    Args:
        database: where; it knows the interval.
    """

    def __init__(self, database: RDBStorage) -> None:
        self._database = database
        self._ids: frozenset[int] = frozenset()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def __contains__(self, trial_id: int) -> bool:
        return trial_id in self._ids

    def add(self, trial_id: int) -> None:
        """A trial of this driver has begun."""
        self._database.record_heartbeat(trial_id)
        self._ids |= {trial_id}

    def discard(self, trial_id: int) -> None:
        """It has come to its end."""
        self._ids -= {trial_id}

    def _beat(self) -> None:
        interval = self._database.get_heartbeat_interval()
        while not self._over.wait(interval):
            try:
                for trial_id in self._ids:
                    self._database.record_heartbeat(trial_id)
            except Exception as error:  # whoever writes next finds out whether the database is lost
                _log.debug("no heartbeat: %s", error)
