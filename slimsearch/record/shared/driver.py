"""This process among those that take trials from a shared study."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from slimsearch.errors import SlimsearchError
from slimsearch.files import write_bytes
from slimsearch.record._optuna_private import artifact_attribute, stale_trials
from slimsearch.record.shared.heartbeat import Heartbeat
from slimsearch.record.shared.study import POLL_SECONDS, SharedStudy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Driver:
    """One driver of a shared study; while this object is open, its trials give signs of life.

    Args:
        shared: the study.
        identity: of the run directory; a trial that bears it is run again from there, and from nowhere else.
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

    def seen(self, trial_id: int) -> None:
        """A running trial of another driver has been seen for the first time.

        That driver may be killed before its first sign of life, and a trial without any would never be stale.
        """
        self._database.record_heartbeat(trial_id)

    def end_lost(self) -> None:
        """End the trials of drivers that are not heard of any more.

        That the trial's state is changed only where it is unfinished, and under a lock, is what makes it one driver
        that ends it, be it its own or another one. Nothing else is written: a trial that is failed without a result
        that says so was lost.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if time.monotonic() - self._looked < POLL_SECONDS:
            return
        self._looked = time.monotonic()
        for trial_id in stale_trials(self._database, self.shared.study):
            if trial_id not in self.heartbeat:  # this process may have been suspended
                with contextlib.suppress(UpdateFinishedTrialError):
                    self._database.set_trial_state_values(trial_id, TrialState.FAIL)

    def upload(self, trial_id: int, paths: Iterable[str]) -> None:
        """Hand on files of a running trial, their paths relative to the run directory."""
        from optuna.artifacts import ArtifactMeta

        for path in paths:
            with (self._folder / path).open("rb") as file:
                artifact = _artifact(hashlib.file_digest(file, "sha256").hexdigest(), path)
                file.seek(0)
                with contextlib.suppress(FileExistsError):  # the same content under the same name
                    self._artifacts.write(artifact, file)
            # As Optuna's `upload_artifact`, which would have chosen a name that says nothing of the content.
            meta = ArtifactMeta(artifact, Path(path).name, "application/octet-stream", None)
            self._database.set_trial_system_attr(trial_id, artifact_attribute(artifact), json.dumps(vars(meta)))

    def fetch(self, frozen: FrozenTrial, paths: Iterable[str]) -> None:
        """Get those files of a finished trial that are not in the run directory.

        Raises:
            SlimsearchError: the content is not what it was, or somebody has deleted it.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound

        kept = _kept(frozen.system_attrs)
        for path in paths:
            target = self._folder / path
            if target.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            artifact = kept.get(target.name, "")
            try:
                with self._artifacts.open_reader(artifact) as file:
                    content = file.read()
            except ArtifactNotFound as error:
                raise SlimsearchError(f"'{path}' is no longer in study '{self.shared.name}'") from error
            if artifact != _artifact(hashlib.sha256(content).hexdigest(), path):
                raise SlimsearchError(f"'{path}' in study '{self.shared.name}' is damaged: its checksum differs")
            write_bytes(target, content)


def _artifact(digest: str, path: str) -> str:
    """How a file is called in the store: by its content, and by its name, in what optuna-dashboard allows."""
    return f"{digest}-{hashlib.sha256(Path(path).name.encode()).hexdigest()[:8]}"


def _kept(attributes: Mapping[str, str]) -> dict[str, str]:
    """Names of files, and of the artifacts that they are."""
    metas = [json.loads(text) for name, text in attributes.items() if name.startswith(artifact_attribute())]
    return {meta["filename"]: meta["artifact_id"] for meta in metas if meta is not None}  # None: deleted
