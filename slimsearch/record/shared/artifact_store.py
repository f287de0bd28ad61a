"""Files in the study's own database, so that one URL is all that drivers have to share."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

_PART_BYTES = 4 * 2**20


class DatabaseArtifacts:
    """An artifact store as Optuna describes them, in one table.

    What is there is never replaced: of several who write under the same name, the first one's content stays.

    Args:
        engine: of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = _table()

    def create(self) -> None:
        """Make the table if it is not there."""
        self._table.metadata.create_all(self._engine)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The content, from its beginning.

        Raises:
            ArtifactNotFound: there is none of that name.
        """
        from optuna.artifacts.exceptions import ArtifactNotFound
        from sqlalchemy import select

        columns = self._table.c
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1).execute(
                select(columns.content).where(columns.artifact_id == artifact_id).order_by(columns.part)
            )
            parts = 0
            for parts, row in enumerate(found, start=1):  # noqa: B007
                file.write(row.content)
        if not parts:
            file.close()
            raise ArtifactNotFound(f"there is no artifact '{artifact_id}'")
        file.seek(0)
        return file

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store the content, whole or not at all.

        Raises:
            FileExistsError: something of that name is there.
        """
        from sqlalchemy.exc import IntegrityError

        try:
            with self._engine.begin() as connection:
                part, content = 0, content_body.read(_PART_BYTES)
                while content or not part:
                    row = self._table.insert().values(artifact_id=artifact_id, part=part, content=content)
                    connection.execute(row)
                    part, content = part + 1, content_body.read(_PART_BYTES)
        except IntegrityError as error:
            raise FileExistsError(f"artifact '{artifact_id}' is there already") from error

    def remove(self, artifact_id: str) -> None:
        """Delete the content.

        Raises:
            ArtifactNotFound: there is none of that name.
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
