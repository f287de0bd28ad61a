"""A study in a database that drivers on several machines share, with settings that they agree on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.options.configuration import RESUMABLE, Configuration, flag
from slimsearch.record._optuna_private import study_id
from slimsearch.record.environment import changed_choices, changed_meaning
from slimsearch.record.shared.artifact_store import DatabaseArtifacts
from slimsearch.record.shared.storage import database_errors, masked, name_metrics, open_database, open_study

if TYPE_CHECKING:
    import optuna

POLL_SECONDS = 1.0
"""Seconds between two reads of a driver that waits for others."""

_SETTINGS = "terms"  # as in studies of version 0.1


class SharedStudy:
    """The study `name` in the database at `url`.

    Args:
        url: see `slimsearch.record.shared.storage.normalised`.
        name: of the study.
        heartbeat: seconds between two heartbeats of a trial.
        create: create the database if it is missing, as for `join`.

    Attributes:
        database: Optuna's storage.
        artifacts: the store for files.
        study: set by `join` and `reopen`.

    Raises:
        SlimsearchError: the database cannot be reached or used.
    """

    study: optuna.Study

    def __init__(self, url: str, name: str, heartbeat: int, *, create: bool = True) -> None:
        self.url, self.name, self.heartbeat = url, name, heartbeat
        self.database = open_database(url, heartbeat, create=create)
        self.artifacts = DatabaseArtifacts(self.database.engine)

    def join(self, objectives: Sequence[Objective], settings: dict[str, Any]) -> dict[str, Any]:
        """Open the study, created if missing; returns the `study_settings` of the driver that started it.

        Raises:
            SlimsearchError: the study has other settings.
        """
        with database_errors(self.url):
            self.study = open_study(self.database, self.name, objectives)
            # In this order: another driver stores its settings before it starts its first trial.
            begun = bool(self.study.get_trials(deepcopy=False))
            if begun and self._agreed(_SETTINGS) is None:
                raise SlimsearchError(
                    f"study '{self.name}' in '{masked(self.url)}' is not a Slimsearch study; choose another --study"
                )
            agreed: dict[str, Any] = self.agree(_SETTINGS, settings)
            differs = disagreement(agreed, settings)
            if differs is not None:
                raise SlimsearchError(
                    f"study '{self.name}' in '{masked(self.url)}' has other settings: {differs}; choose another --study"
                )
            name_metrics(self.study, objectives)
        return agreed

    def reopen(self) -> None:
        """Open the existing study.

        Raises:
            SlimsearchError: there is no such study.
        """
        import optuna

        with database_errors(self.url):
            try:
                self.study = optuna.load_study(study_name=self.name, storage=self.database)
            except KeyError as error:
                raise SlimsearchError(f"there is no study '{self.name}' in '{masked(self.url)}'") from error

    def agree(self, name: str, value: Any) -> Any:
        """The value of `name` for all drivers: `value`, unless another driver has set one before."""
        try:
            self.artifacts.write(self._artifact(name), io.BytesIO(json.dumps(value).encode()))
        except FileExistsError:
            return self._agreed(name)
        return value

    def once(self, name: str, driver: str, make: Callable[[], Any], waiting: Callable[[], None]) -> Any:
        """The result of `make`, called by the first driver while the others wait for it.

        Drivers wait as long as for a stale trial, then call `make` themselves; the first recorded result counts.

        Args:
            name: of the result.
            driver: this driver.
            make: returns JSON values.
            waiting: called before waiting for another driver.
        """
        found = self._agreed(name)
        if found is None and self.agree(f"{name}: maker", driver) != driver:
            waiting()
            patience = time.monotonic() + 2 * self.heartbeat
            while (found := self._agreed(name)) is None and time.monotonic() < patience:
                time.sleep(POLL_SECONDS)
        return self.agree(name, make()) if found is None else found

    def _agreed(self, name: str) -> Any:
        from optuna.artifacts.exceptions import ArtifactNotFound

        try:
            with self.artifacts.open_reader(self._artifact(name)) as file:
                return json.load(file)
        except ArtifactNotFound:
            return None

    def _artifact(self, name: str) -> str:
        return f"study-{study_id(self.study)}-{hashlib.sha256(name.encode()).hexdigest()}"


# Options that may differ between machines; data sets are compared by hash.
_LOCAL_OPTIONS = (*RESUMABLE, "run_dir", "study", "data_root", "download", "dataset")


def study_settings(configuration: Configuration, environment: dict[str, Any]) -> dict[str, Any]:
    """The settings that all drivers share: options, choices and data set; files are named without folders."""
    options = {
        option.name: getattr(configuration, option.name)
        for option in dataclasses.fields(Configuration)
        if option.name not in _LOCAL_OPTIONS
    }
    return {
        "options": {
            name: _without_folders(value) if isinstance(value, str) else value for name, value in options.items()
        }
        | {name: environment[name] for name in ("device", "precision")},
        "dataset": environment["dataset"].get("fingerprint", ""),
        "choices": environment["choices"],
        "environment": environment,
    }


def disagreement(study: dict[str, Any], here: dict[str, Any]) -> str | None:
    """A message about the first difference between the settings of a study and those of this driver, or None."""
    for name in sorted(study["options"].keys() | here["options"].keys()):
        theirs, ours = study["options"].get(name), here["options"].get(name)
        if theirs != ours:
            return f"{flag(name)} is {theirs} in the study and {ours} here"
    if study["choices"] != here["choices"]:
        return f"its space differs: {changed_choices(study, here)}"
    if study["dataset"] != here["dataset"]:
        return "the data set has another hash here"
    theirs, ours = study.get("environment"), here.get("environment")
    return changed_meaning(theirs, ours) if theirs and ours else None


def _without_folders(text: str) -> str:
    """``name=path/to/file.py:function,...`` as ``name=file.py:function,...``."""
    entries = (entry.rpartition("=") for entry in text.split(","))
    return ",".join(f"{name}{equals}{PurePath(value).name}" for name, equals, value in entries)
