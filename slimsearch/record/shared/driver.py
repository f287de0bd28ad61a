"""A driver of a shared study: its heartbeat, and the exchange of files with other drivers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError
from slimsearch.files import write_bytes
from slimsearch.record._optuna_private import artifact_attribute, stale_trials
from slimsearch.record.shared.study import POLL_SECONDS, SharedStudy

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

_log = logging.getLogger(__name__)


class Driver:
    """One driver of a shared study; while this object is open, it sends heartbeats of its trials.

    Args:
        shared: the study.
        identity: of the run directory, the only one from which its interrupted trials are resumed.
        host: name and processor of the machine.
        folder: the run directory.
    """

    def __init__(self, shared: SharedStudy, identity: str, host: str, folder: Path) -> None:
        self.shared, self.identity, self.host = shared, identity, host
        self._folder = folder
        self._database, self._artifacts = shared.database, shared.artifacts
        self.heartbeat = Heartbeat(shared.database)
        self._looked = 0.0

    def __enter__(self) -> Driver:
        self.heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, error, trace)

    def add_first_heartbeat(self, trial_id: int) -> None:
        """Send a heartbeat of a running trial of another driver when it is first read.

        That driver may be killed before its first heartbeat; a trial without any would never become stale.
        """
        self._database.record_heartbeat(trial_id)

    def end_lost(self) -> None:
        """Fail the trials of drivers that no longer send heartbeats.

        The database changes the state of unfinished trials only, under a lock, so that exactly one driver ends a trial.
        A failed trial without a result is a lost one.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if time.monotonic() - self._looked < POLL_SECONDS:
            return
        self._looked = time.monotonic()
        for trial_id in stale_trials(self._database, self.shared.study):
            if trial_id not in self.heartbeat:  # own trials are stale if this process was suspended
                with contextlib.suppress(UpdateFinishedTrialError):
                    self._database.set_trial_state_values(trial_id, TrialState.FAIL)

    def upload(self, trial_id: int, paths: Iterable[str]) -> None:
        """Store files of a running trial, their paths relative to the run directory."""
        from optuna.artifacts import ArtifactMeta

        for path in paths:
            with (self._folder / path).open("rb") as file:
                artifact = _artifact(hashlib.file_digest(file, "sha256").hexdigest(), path)
                file.seek(0)
                with contextlib.suppress(FileExistsError):  # the same content is stored already
                    self._artifacts.write(artifact, file)
            # Like Optuna's `upload_artifact`, but with an id made from the content.
            meta = ArtifactMeta(artifact, Path(path).name, "application/octet-stream", None)
            self._database.set_trial_system_attr(trial_id, artifact_attribute(artifact), json.dumps(vars(meta)))

    def fetch(self, frozen: FrozenTrial, paths: Iterable[str]) -> None:
        """Fetch the files of a finished trial that are missing in the run directory.

        Raises:
            SlimsearchError: a file was deleted or is damaged.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound

        ids = _artifact_ids(frozen.system_attrs)
        for path in paths:
            target = self._folder / path
            if target.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            artifact = ids.get(target.name, "")
            try:
                with self._artifacts.open_reader(artifact) as file:
                    content = file.read()
            except ArtifactNotFound as error:
                raise SlimsearchError(f"'{path}' is no longer in study '{self.shared.name}'") from error
            if artifact != _artifact(hashlib.sha256(content).hexdigest(), path):
                raise SlimsearchError(f"'{path}' in study '{self.shared.name}' is damaged: its checksum does not match")
            write_bytes(target, content)


def _artifact(digest: str, path: str) -> str:
    """The id of a file in the store, from its content and name, in characters that optuna-dashboard allows."""
    return f"{digest}-{hashlib.sha256(Path(path).name.encode()).hexdigest()[:8]}"


def _artifact_ids(attributes: Mapping[str, str]) -> dict[str, str]:
    """The artifact id of each file name."""
    metas = [json.loads(text) for name, text in attributes.items() if name.startswith(artifact_attribute())]
    return {meta["filename"]: meta["artifact_id"] for meta in metas if meta is not None}  # None: deleted


class Heartbeat:
    """Sends heartbeats of trials from a thread while this object is open, so that they do not become stale."""

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
        """Start sending heartbeats of a trial."""
        self._database.record_heartbeat(trial_id)
        self._ids |= {trial_id}

    def discard(self, trial_id: int) -> None:
        """Stop sending heartbeats of a trial."""
        self._ids -= {trial_id}

    def _beat(self) -> None:
        interval = self._database.get_heartbeat_interval()
        while not self._over.wait(interval):
            try:
                for trial_id in self._ids:
                    self._database.record_heartbeat(trial_id)
            except Exception as error:  # the next write reports a lost database
                _log.debug("no heartbeat: %s", error)
