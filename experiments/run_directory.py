"""Everything of a run on disk: the lock, the study, and where each file is."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evaluators import Objective
from experiments.record import trial_folder
from experiments.storage import name_metrics, open_study
from slimsearch_errors import SlimsearchError

if TYPE_CHECKING:
    import optuna

_STUDY = "slimsearch"
# What a process that was killed while it began can have left; nothing is lost by beginning anew.
_BEFORE_A_RUN = {"lock", "driver", "driver.part", "environment.json", "environment.json.part", "config.part"}


class RunDirectory:
    """A run directory, locked while this object is open. One process writes at a time.

    Args:
        path: of the directory.
        create: make it; otherwise it must be there.

    Attributes:
        torn: whether the end of the journal, torn by a kill, was moved to ``study.journal.torn`` when it was opened.

    Raises:
        SlimsearchError: it exists already, is missing, or is in use.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        from filelock import FileLock, Timeout

        self.path = path.expanduser().resolve()
        self.torn = False
        if create:
            if self.path.exists() and (not self.path.is_dir() or {e.name for e in self.path.iterdir()} - _BEFORE_A_RUN):
                raise SlimsearchError(f"--run-dir '{path}' exists already; go on with it by --resume {path}")
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SlimsearchError(f"cannot make the run directory '{path}': {error.strerror}") from error
        elif not (self.path / "config.yaml").is_file():
            raise SlimsearchError(f"'{path}' is no run directory: it has no config.yaml")
        self._lock = FileLock(str(self.path / "lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise SlimsearchError(f"run directory '{path}' is in use by another process") from None
        except OSError as error:
            raise SlimsearchError(f"cannot write to the run directory '{path}': {error.strerror}") from error
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.path / "study.journal"

    @property
    def scratch(self) -> Path:
        """What lives only as long as the run is open."""
        return self.path / ".scratch"

    def identity(self) -> str:
        """By which this run directory is known among the drivers of a shared study; chosen once."""
        path = self.path / "driver"
        return (
            path.read_text(encoding="utf-8")
            if path.exists()
            else self.write_text("driver", uuid.uuid4().hex).read_text()
        )

    def trial_directory(self, number: int) -> Path:
        """The folder of a trial's files, made if need be."""
        folder = self.path / trial_folder(number)
        folder.parent.mkdir(exist_ok=True)  # and nothing above: a run that was taken away is not begun anew
        folder.mkdir(exist_ok=True)
        return folder

    def open_study(self, objectives: Sequence[Objective]) -> optuna.Study:
        """The study in `journal`, made if it is not there; a torn last line is moved aside first, see `torn`.

        Raises:
            SlimsearchError: the journal is damaged elsewhere.
        """
        import optuna
        from optuna.storages import JournalStorage

        from experiments.journal import Journal, mend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        for stale in self.path.glob(f"{self.journal.name}.lock*"):
            stale.unlink(missing_ok=True)  # Optuna's own lock outlives a killed process; ours tells that it is stale
        if self.journal.exists():
            self.torn = mend(self.journal, self.path / "study.journal.torn")
        try:
            study = open_study(JournalStorage(Journal(str(self.journal))), _STUDY, objectives)
            name_metrics(study, objectives)
        except OSError:  # the disk
            raise
        except Exception as error:  # Optuna raises whatever a damaged operation leads to
            raise SlimsearchError(
                f"'{self.journal}' cannot be read: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
        return study

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run, whole or not at all."""
        path = self.path / name
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run, whole or not at all."""
        return self.write_text(name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """A JSON file of the run.

        Raises:
            SlimsearchError: it is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SlimsearchError(f"cannot read '{self.path / name}': {error}") from error
