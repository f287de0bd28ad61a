"""An artifact store in the database of a shared study, so that drivers need to share nothing but its URL."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

_CHUNK_BYTES = 4 * 2**20


class DatabaseArtifacts:
    """An Optuna artifact store in one table. Artifacts are never replaced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = _table()

    def create(self) -> None:
        """Create the table if it is missing."""
        self._table.metadata.create_all(self._engine)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open the content of an artifact for reading.

        Raises:
            ArtifactNotFound: there is no such artifact.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound
        from sqlalchemy import select

        columns = self._table.c
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1).execute(
                select(columns.content).where(columns.artifact_id == artifact_id).order_by(columns.part)
            )
            chunks = 0
            for chunks, row in enumerate(found, start=1):  # noqa: B007
                file.write(row.content)
        if not chunks:
            file.close()
            raise ArtifactNotFound(f"there is no artifact '{artifact_id}'")
        file.seek(0)
        return file

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an artifact in one transaction.

        Raises:
            FileExistsError: the artifact exists.
        """
        from sqlalchemy.exc import IntegrityError

        try:
            with self._engine.begin() as connection:
                chunk, content = 0, content_body.read(_CHUNK_BYTES)
                while content or not chunk:
                    row = self._table.insert().values(artifact_id=artifact_id, part=chunk, content=content)
                    connection.execute(row)
                    chunk, content = chunk + 1, content_body.read(_CHUNK_BYTES)
        except IntegrityError as error:
            raise FileExistsError(f"artifact '{artifact_id}' is there already") from error

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact.

        Raises:
            ArtifactNotFound: there is no such artifact.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound

        with self._engine.begin() as connection:
            condition = self._table.c.artifact_id == artifact_id
            if not connection.execute(self._table.delete().where(condition)).rowcount:
                raise ArtifactNotFound(f"there is no artifact '{artifact_id}'")


def _table() -> Table:
    from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table

    return Table(
        "slimsearch_artifacts", MetaData(),
        Column("artifact_id", String(255), primary_key=True),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("content", LargeBinary(2**32 - 1), nullable=False),
    )  # fmt: skip
