"""Run directories: the lock, the study, and the paths of files."""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from slimsearch import files
from slimsearch.errors import SlimsearchError, describe_error
from slimsearch.evaluators import Objective
from slimsearch.options.configuration import check_run_directory
from slimsearch.record.shared.storage import name_metrics, open_study
from slimsearch.record.trial import trial_folder

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import BaseJournalBackend

_JOURNAL = "study.journal"
# Seconds; `in_use` holds the lock for a moment.
_LOCK_TIMEOUT = 0.3
# Files of a process that was killed before the run started; a new run may replace them.
_LEFTOVERS = re.compile(r"lock|driver|environment\.json|(driver|environment|config)\.\d+\.part.*")


def refuse_unsafe_files(path: Path) -> None:
    """Reject links out of a run directory, through which files elsewhere could be overwritten, and special files.

    Raises:
        SlimsearchError: the directory contains one.
    """
    root = path.resolve()
    for folder, folders, names in os.walk(root):
        for file in (Path(folder, name) for name in (*folders, *names)):
            if file.name.startswith(f"{_JOURNAL}.lock"):
                continue  # Optuna's lock is a link that is only removed
            mode = file.lstat().st_mode
            if stat.S_ISLNK(mode) and not file.resolve().is_relative_to(root):
                raise SlimsearchError(f"'{file}' is a link out of the run directory, which is not allowed")
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise SlimsearchError(f"'{file}' is not a file or folder, which a run directory may not contain")


def refuse_existing(path: Path) -> None:
    """Refuse to start a run in a directory that has files, except those of a run that never started.

    Raises:
        SlimsearchError: it exists.
    """
    found = path.expanduser().resolve()
    if not found.exists() or (found.is_dir() and all(_LEFTOVERS.fullmatch(entry.name) for entry in found.iterdir())):
        return
    advice = f"continue it with --resume {path}" if (found / "config.yaml").is_file() else "choose another one"
    raise SlimsearchError(f"--run-dir '{path}' exists already; {advice}")


def in_use(path: Path) -> bool:
    """Whether a process is writing to the run directory."""
    from filelock import FileLock, Timeout

    lock = path / "lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(str(lock), timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the lock belongs to another user
        return False


class RunDirectory:
    """A run directory, locked while this object is open, so that one process writes at a time.

    Args:
        path: of the directory.
        create: create the directory instead of opening it.

    Attributes:
        torn: whether an incomplete last line of the journal was moved to ``study.journal.torn`` when it was opened.

    Raises:
        SlimsearchError: the directory exists already, is missing, or is in use.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        from filelock import FileLock, Timeout

        self.path = path.expanduser().resolve()
        self.torn = False
        if create:
            refuse_existing(path)
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SlimsearchError(f"cannot create the run directory '{path}': {error.strerror}") from error
        else:
            check_run_directory(path.expanduser())
        refuse_unsafe_files(self.path)
        self._lock = FileLock(str(self.path / "lock"))
        try:
            self._lock.acquire(timeout=_LOCK_TIMEOUT)
        except Timeout:
            raise SlimsearchError(f"run directory '{path}' is in use by another process") from None
        except OSError as error:
            raise SlimsearchError(f"cannot write to the run directory '{path}': {error.strerror}") from error
        shutil.rmtree(self.scratch, ignore_errors=True)
        files.remove_temporary(self.path)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    @property
    def config(self) -> Path:
        """The file with the resolved configuration."""
        return self.path / "config.yaml"

    @property
    def journal(self) -> Path:
        """The file with the Optuna study."""
        return self.path / _JOURNAL

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, removed when the run directory is closed."""
        return self.path / ".scratch"

    def identity(self) -> str:
        """The name of this driver in a shared study; chosen once for each run directory."""
        path = self.path / "driver"
        if not path.exists():
            files.write_text(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8")

    def trial_directory(self, number: int) -> Path:
        """The folder of a trial's files, created if missing."""
        folder = self.path / trial_folder(number)
        folder.parent.mkdir(exist_ok=True)  # without its parents, so that a deleted run directory stays deleted
        folder.mkdir(exist_ok=True)
        return folder

    def open_study(self, objectives: Sequence[Objective]) -> optuna.Study:
        """The study in `journal`, created if missing; an incomplete last line is moved away first, see `torn`.

        Raises:
            SlimsearchError: the journal is damaged elsewhere, or lost; nothing was changed.
        """
        from slimsearch.record.journal import Journal, repair

        for stale in self.path.glob(f"{self.journal.name}.lock*"):
            stale.unlink(missing_ok=True)  # of a killed process, as this process holds the run's lock
        if _has_journal(self.path):
            self.torn = repair(self.journal, self.path / "study.journal.torn")
        return _study(self.journal, Journal(self.journal), objectives)


def read_study(path: Path, objectives: Sequence[Objective]) -> optuna.Study | None:
    """A copy in memory of the study in the run directory `path`, or None if it has none yet.

    Raises:
        SlimsearchError: the journal is damaged before its last line, or lost.
    """
    journal = path / _JOURNAL
    if not _has_journal(path):
        return None
    from optuna.storages.journal import BaseJournalBackend

    from slimsearch.record.journal import read_lines

    class Copy(BaseJournalBackend):
        def __init__(self, lines: list[dict[str, Any]]) -> None:
            self._lines = lines

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self._lines[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._lines += logs

    return _study(journal, Copy(read_lines(journal)), objectives)


def _has_journal(path: Path) -> bool:
    """Whether the run directory `path` has a journal yet.

    Raises:
        SlimsearchError: it has none any more.
    """
    if (path / _JOURNAL).exists():
        return True
    if any(path.glob("trials/*/")):
        raise SlimsearchError(f"'{path / _JOURNAL}', the record of its trials, is missing: put it back")
    return False


def _study(journal: Path, backend: BaseJournalBackend, objectives: Sequence[Objective]) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(backend)
        # A new study has the name of the run; the directory of an older one may have been renamed.
        names = optuna.get_all_study_names(storage)
        study = open_study(storage, names[0] if names else journal.parent.resolve().name, objectives)
        name_metrics(study, objectives)
        found, wanted = [d.name for d in study.directions], [o.direction.upper() for o in objectives]
        if found != wanted:
            raise ValueError(f"its directions are {', '.join(found)}, those of the run {', '.join(wanted)}")
    except OSError:  # the disk
        raise
    except Exception as error:  # a damaged operation may raise any exception in Optuna
        raise SlimsearchError(f"'{journal}' cannot be read: {describe_error(error)}") from error
    return study
