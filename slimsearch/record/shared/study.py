"""A study in a database, which drivers on several machines work on: what they agree on, and what is done once."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from slimsearch.errors import SlimsearchError
from slimsearch.evaluators import Objective
from slimsearch.record._optuna_private import study_id
from slimsearch.record.shared.artifact_store import DatabaseArtifacts
from slimsearch.record.shared.storage import masked, name_metrics, one_line, open_database, open_study
from slimsearch.record.shared.terms import disagreement

if TYPE_CHECKING:
    import optuna

POLL_SECONDS = 1.0
"""How often a driver that waits for others looks what they have done."""

_TERMS = "terms"


class SharedStudy:
    """The study `name` in the database at `url`.

    Args:
        url: normalised, see `slimsearch.record.shared.storage`.
        name: of the study.
        heartbeat: seconds between two signs of life of a trial.

    Attributes:
        database: Optuna's storage.
        artifacts: where files are handed on.
        study: once it was opened.

    Raises:
        SlimsearchError: the database cannot be reached or used.
    """

    study: optuna.Study

    def __init__(self, url: str, name: str, heartbeat: int) -> None:
        self.url, self.name, self.heartbeat = url, name, heartbeat
        self.database = open_database(url, heartbeat)
        self.artifacts = DatabaseArtifacts(self.database.engine)

    def join(self, objectives: Sequence[Objective], terms: dict[str, Any]) -> dict[str, Any]:
        """Open the study, made if need be; the terms of the driver that began it.

        Args:
            objectives: of the study.
            terms: what this driver would search, and how, see `slimsearch.record.shared.terms`.

        Raises:
            SlimsearchError: the study is about something else.
        """
        with one_line(self.url):
            self.study = open_study(self.database, self.name, objectives)
            # In this order: another driver says what it searches, and only then begins its first trial.
            begun = bool(self.study.get_trials(deepcopy=False))
            if begun and self._agreed(_TERMS) is None:
                raise SlimsearchError(
                    f"study '{self.name}' in '{masked(self.url)}' was not made by Slimsearch; choose another --study"
                )
            agreed: dict[str, Any] = self.agree(_TERMS, terms)
            differs = disagreement(agreed, terms)
            if differs is not None:
                raise SlimsearchError(
                    f"study '{self.name}' in '{masked(self.url)}' is another one: {differs}; choose another --study"
                )
            name_metrics(self.study, objectives)
        return agreed

    def reopen(self) -> None:
        """Open the study that must be there.

        Raises:
            SlimsearchError: it is not.
        """
        import optuna

        with one_line(self.url):
            try:
                self.study = optuna.load_study(study_name=self.name, storage=self.database)
            except KeyError as error:
                raise SlimsearchError(f"there is no study '{self.name}' in '{masked(self.url)}'") from error

    def agree(self, name: str, value: Any) -> Any:
        """What all drivers mean by `name`: `value`, unless another driver has said something before."""
        try:
            self.artifacts.write(self._artifact(name), io.BytesIO(json.dumps(value).encode()))
        except FileExistsError:
            return self._agreed(name)
        return value

    def once(self, name: str, driver: str, make: Callable[[], Any], waiting: Callable[[], None]) -> Any:
        """What `make` gives the first driver that comes here; the others wait for it.

        One that is not heard of for as long as a trial would be is not waited for any longer, and if both come to an
        end, what was recorded first is what all get.

        Args:
            name: of what is made.
            driver: who asks.
            make: gives what can be said in JSON.
            waiting: called where another driver is at it.
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
