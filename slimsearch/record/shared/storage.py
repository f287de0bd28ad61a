"""Databases for studies: URLs, connections and error messages."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_plus

from slimsearch.errors import SlimsearchError, first_line
from slimsearch.evaluators import Objective

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy import URL, Engine

# Names of parameters in a URL that hold passwords, or other URLs and connection strings.
_SECRET = re.compile(
    "pass|pwd|secret|token|credential|odbc_connect|dsn|conninfo|(api|access|private|shared)_?key|^key$", re.IGNORECASE
)
# A parameter whose value has parameters in it.
_INNER_SECRET = re.compile(r"(pass\w*|pwd|secret|token|key)\s*[=:]", re.IGNORECASE)
_CONNECT_SECONDS = 5
# Seconds that writers to SQLite wait for each other.
_SQLITE_SECONDS = 60
_ATTEMPTS = 5


def normalised(url: str) -> str:
    """`url` with its database driver, and with the absolute path of an SQLite file.

    Raises:
        SlimsearchError: `url` is not the URL of a database, or the driver is not installed.
    """
    from sqlalchemy.exc import NoSuchModuleError

    parsed = _parsed(url)
    if url.partition("?")[0].partition("//")[2].count("@") > 1:
        raise SlimsearchError(f"--storage '{masked(url)}': write %40 for an @ in the password, and %2F for a /")
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise SlimsearchError(f"--storage '{masked(url)}' names no file; write sqlite:///path/to/study.db")
        parsed = parsed.set(database=str(Path(str(parsed.database)).expanduser().resolve()))
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        wanted = "psycopg[binary], the extra 'postgres'" if "psycopg" in str(error.name) else error.name
        raise SlimsearchError(f"--storage '{masked(url)}' needs a driver that is not installed: {wanted}") from error
    except NoSuchModuleError as error:
        raise SlimsearchError(
            f"--storage '{masked(url)}' is of no known database; write postgresql://user@host/database or "
            "sqlite:///path/to/study.db"
        ) from error
    return parsed.render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """`url` without passwords, to be written to files; psycopg finds one in PGPASSWORD or ~/.pgpass."""
    parsed = _parsed(url)
    secret = [name for name, value in parsed.query.items() if _is_secret(name, value)]
    return parsed._replace(password=None).difference_update_query(secret).render_as_string(hide_password=False)


def masked(url: str) -> str:
    """`url` with all passwords masked, to be shown, also where it is not well formed."""
    # A password may contain any of : / ? @ &, unescaped. After //, a user and the only @ there is none.
    shown = re.sub(r"^((?:[\w+.-]*:)?//)?([^:@/?]*):(?!//[^:/@?]*@[^@]*$).*@", r"\1\2:***@", url, flags=re.DOTALL)
    address, mark, query = shown.partition("?")
    return address + mark + "&".join(_masked_parameter(piece) for piece in query.split("&"))


def _masked_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    if equals and not _is_secret(unquote(name), unquote_plus(value)):
        return text
    return f"{name}=***" if equals else "***" if text else ""


def _is_secret(name: str, value: str | Sequence[str]) -> bool:
    values = [value] if isinstance(value, str) else value
    return bool(_SECRET.search(name)) or any(_INNER_SECRET.search(one) for one in values)


def _redacted(message: str, url: str) -> str:
    """`message` without the passwords in `url`, which the library of a database may quote."""
    try:
        parsed = _parsed(url)
    except SlimsearchError:
        return message
    secrets = {str(parsed.password or ""), parsed.password and quote(str(parsed.password), safe="")}
    for name, value in parsed.query.items():
        if _is_secret(name, value):
            secrets |= {value} if isinstance(value, str) else {*value}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message


def is_local(url: str) -> bool:
    """Whether a database is a file or a server on this machine."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return True
    named = {name.lower(): text for name, text in parsed.query.items()}
    if "service" in named:  # the host is in a file that libpq reads
        return False
    hosts = [parsed.host or ""]
    for name in ("host", "hostaddr"):
        text = named.get(name, "")
        hosts += text.split(",") if isinstance(text, str) else ",".join(text).split(",")
    return all(is_loopback(host.rpartition(":")[0] if host.count(":") == 1 else host) for host in hosts)


def is_loopback(host: str) -> bool:
    """Whether a host name, a socket folder or an empty name means this machine."""
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SlimsearchError(
            f"--storage '{masked(url)}' is not a database URL, such as postgresql://user@host/database or "
            "sqlite:///path/to/study.db"
        ) from error


@contextlib.contextmanager
def database_errors(url: str, advice: str = "") -> Iterator[None]:
    """Convert exceptions of the database to a one-line error with its URL, followed by `advice`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        message = _redacted(first_line(getattr(cause, "orig", None) or cause), url)
        raise SlimsearchError(f"database '{masked(url)}': {message}{advice}") from error


def check_reachable(url: str) -> None:
    """Connect to the database of a `normalised` URL once; writes nothing.

    Raises:
        SlimsearchError: the database cannot be reached.
    """
    from sqlalchemy import create_engine

    if _parsed(url).get_backend_name() == "sqlite":
        folder = Path(str(_parsed(url).database)).parent
        if not folder.is_dir():
            raise SlimsearchError(f"database '{masked(url)}': unable to open: there is no folder '{folder}'")
        return
    with database_errors(url):
        engine = create_engine(url, **_engine_options(url))
        engine.connect().close()
        engine.dispose()


def _refuse_missing(url: str) -> None:
    """Refuse a database without a study, which would be created empty when Optuna opens it.

    Raises:
        SlimsearchError: there is none, or it cannot be reached.
    """
    from sqlalchemy import create_engine, inspect

    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
        raise SlimsearchError(f"database '{masked(url)}': there is no file '{parsed.database}'")
    with database_errors(url):
        engine = create_engine(url, **_engine_options(url))
        try:
            if not inspect(engine).has_table("studies"):
                raise SlimsearchError(f"database '{masked(url)}': there are no studies in it")
        finally:
            engine.dispose()


def open_database(url: str, heartbeat: int | None = None, *, create: bool) -> RDBStorage:
    """Open the database of a `normalised` URL.

    Args:
        url: of the database.
        heartbeat: seconds between two heartbeats; a trial without one for twice as long is stale.
        create: create the tables, and an SQLite file, if they are missing.

    Raises:
        SlimsearchError: the database cannot be reached or used.
    """
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    from slimsearch.record.shared.artifact_store import DatabaseArtifacts

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not create:
        _refuse_missing(url)
    for attempt in range(1, _ATTEMPTS + 1):
        with database_errors(url), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the heartbeat is "experimental" since Optuna 2.9
            try:
                storage = RDBStorage(url, engine_kwargs=_engine_options(url), heartbeat_interval=heartbeat)
                if create:
                    DatabaseArtifacts(storage.engine).create()
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                # Several drivers may create the tables at the same time; all but one fail, with different errors.
                unreachable = isinstance(error, OperationalError) and "already exists" not in str(error)
                if unreachable or attempt == _ATTEMPTS:
                    raise
                time.sleep(0.2 * attempt)
            except RuntimeError as error:  # another version of Optuna created the tables
                raise SlimsearchError(f"database '{masked(url)}': {_redacted(str(error), url)}") from error
            else:
                _lock_transactions(storage.engine)
                return storage
    raise AssertionError("the last attempt returns or raises")


def open_study(storage: BaseStorage, name: str, objectives: Sequence[Objective]) -> optuna.Study:
    """The study `name`, created if missing."""
    import optuna
    from optuna.study import StudyDirection

    if name in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=name, storage=storage)
    directions = [StudyDirection[objective.direction.upper()] for objective in objectives]
    return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)


def name_metrics(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    """Store the names of the objectives in the study, for other Optuna tools."""
    names = [objective.metric for objective in objectives]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental" since Optuna 3.2
            study.set_metric_names(names)


def _engine_options(url: str) -> dict[str, Any]:
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SQLITE_SECONDS}}
    options: dict[str, Any] = {"pool_pre_ping": True}  # idle connections may be closed during long trials
    if parsed.drivername == "postgresql+psycopg":
        # Optuna compares local times of the session; without UTC, trials become stale when summer time starts.
        options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS, "options": "-c timezone=UTC"}
    return options


def _lock_transactions(engine: Engine) -> None:
    """Make SQLite lock the file at the start of each transaction.

    Optuna reads the state of a trial and then changes it, with the row locked in between. SQLite has no row locks and
    locks at the first change by default, so that two drivers could both end the same trial.
    """
    from sqlalchemy import event

    if engine.dialect.name != "sqlite":
        return

    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # Python's sqlite3 starts no transactions of its own

    def transaction_started(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", transaction_started)
    engine.dispose()
