"""The laws of storages, kept by the journal, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slimsearch.record.shared.storage import normalised
from slimsearch.testing import SharedStorageContract, StorageContract
from tests.databases import PostgreSQL, postgresql


class TestJournal(StorageContract):
    storage = None


class TestSqlite(SharedStorageContract):
    storage = "sqlite:///{folder}/study.db"


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSQL]:
    with postgresql() as found:
        yield found


@pytest.mark.postgres
class TestPostgres(SharedStorageContract):
    @pytest.fixture
    def url(self, cluster: PostgreSQL) -> str:
        return normalised(cluster.url())
