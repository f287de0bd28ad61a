"""Databases for tests: an SQLite file, and a PostgreSQL of their own on the loopback address."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_names = itertools.count()


class PostgreSQL:
    """A running cluster; `url` makes another empty database in it. The user "guarded" has the password "s3cret"."""

    def __init__(self, binaries: Path, folder: Path, port: int) -> None:
        self._binaries, self.folder, self.port = binaries, folder, port

    def url(self, user: str = "tester") -> str:
        name = f"study{next(_names)}"
        self.sql(f"CREATE DATABASE {name} OWNER {user.partition(':')[0]}")
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(host="127.0.0.1", port=self.port, user="tester", dbname="postgres") as connection:
            connection.autocommit = True
            connection.execute(statement)  # type: ignore[arg-type]

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        _run(self._binaries / "pg_ctl", "-D", str(self.folder / "data"), *words)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A cluster in a temporary folder, gone afterwards; the test is skipped where Debian's package is missing."""
    pytest.importorskip("psycopg", reason="needs slimsearch[postgres]")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("needs PostgreSQL's programs: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="slimsearch-postgres-"))
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        _run(found[-1], "-D", str(folder / "data"), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        cluster = PostgreSQL(found[-1].parent, folder, port)
        cluster.start()
        try:
            cluster.sql("CREATE ROLE guarded LOGIN PASSWORD 's3cret'")
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: Path, *words: str) -> None:
    """PostgreSQL refuses to be run by root."""
    root = os.getuid() == 0
    subprocess.run(
        [str(program), *words], check=True, capture_output=True, cwd="/", timeout=60,
        **({"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}),
    )  # fmt: skip
