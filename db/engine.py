"""Connections to the SQL database: SQLite with several writers, or PostgreSQL."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SAWarning

from ecgbatch import urls
from ecgbatch.printing import first_line
from ecgbatch.settings import EcgbatchError

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

OUTAGE_SECONDS = 300
"""How long those who can wait do so for a database that is away."""

LOCK_SECONDS = 10
"""How long a statement waits for another SQLite writer before it counts as an outage."""

SILENT_SECONDS = 30
"""How long PostgreSQL and we wait for each other in mid-transaction, should the network or a machine be gone.

Left to itself, TCP waits for hours: a machine that vanished would keep its locks, and others from its chunks.
"""

SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"
READ_ONLY_TRANSACTION = "25006"
"""What a server says that is no longer the primary one, or not yet."""
INSUFFICIENT_PRIVILEGE = "42501"
NOT_THERE = ("3F000", "42P01", "42703")
"""No schema, no such table, no such column."""


class DatabaseAway(EcgbatchError):
    """The database cannot be reached or written."""


class NotAllowed(EcgbatchError):
    """The database's role lacks a right."""


class Database:
    """The SQL database of a URL. With `patience`, transactions outlast an outage of that many seconds.

    One that is `read_only` is never written: no file is made, and the database refuses whatever would change it.
    """

    def __init__(self, url: str, patience: float = 0, read_only: bool = False) -> None:
        self.patience = patience
        try:
            self.url = make_url(url)
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
            self.engine = _engine(self.url, patience > 0, read_only)
        except (ArgumentError, ModuleNotFoundError, NoSuchModuleError, SAWarning, ValueError) as error:
            cause = first_line(error) if type(error) in (SAWarning, ValueError) else type(error).__name__
            raise EcgbatchError(
                f"ECGBATCH_DATABASE_URL {urls.without_secrets(url)} cannot be used ({cause}); "
                "give sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME (needs ecgbatch[postgresql])"
            ) from None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def where(self) -> str:
        """Where to find it from anywhere: the absolute path of an SQLite file, else the URL without its password."""
        file = self.url.database if self.is_sqlite else None
        return str(Path(file).absolute()) if file else str(self)

    def __str__(self) -> str:
        return urls.without_secrets(self.url.render_as_string(hide_password=False))

    def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in a write transaction, again after a passing fault: it must bear being repeated.

        Raises DatabaseAway when the database cannot be reached or written within `patience` seconds, and NotAllowed
        when its role lacks a right.
        """
        give_up = time.monotonic() + self.patience
        pause = 0.1
        while True:
            try:
                with self.engine.begin() as connection:
                    return work(connection, *args, **kwargs)
            except DBAPIError as error:
                self._refuse_lasting(error)
                if time.monotonic() + pause > give_up and not _conflict(error):
                    raise self._unreachable(error) from None
                if _sqlstate(error) == READ_ONLY_TRANSACTION:
                    self.engine.dispose()  # its connections would stay with the server that was the primary one
                log.warning("database %s: %s; trying again in %.1f s", self, first_line(error), pause)
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose transaction writes nothing and blocks no writer.

        Raises DatabaseAway at once, and NotAllowed when the role lacks a right.
        """
        reader = self.engine.execution_options(ecgbatch_reads=True)
        try:
            with reader.connect() as connection:
                yield connection
        except DBAPIError as error:
            self._refuse_lasting(error)
            raise self._unreachable(error) from None

    def _refuse_lasting(self, error: DBAPIError) -> None:
        """Raises what does not pass: the error itself for a wrong statement, NotAllowed for a right that is missing."""
        if _sqlstate(error) == INSUFFICIENT_PRIVILEGE:
            raise NotAllowed(
                f"the role {self.url.username!r} may not do that in the database {self}: {first_line(error)}; "
                "docs/operations.md has the GRANTs"
            ) from None
        if error.statement is None:  # it fails at the door: a file that is none of SQLite's, an option that is none
            raise self._unreachable(error) from None
        if _sqlstate(error) in NOT_THERE:
            raise EcgbatchError(
                f"what ecgbatch made in the database {self} is not to be seen: {first_line(error)}; see that the URL's "
                "database and search_path are those of `ecgbatch db upgrade`"
            ) from None
        if not _passing(error):
            raise error

    def _unreachable(self, error: DBAPIError) -> DatabaseAway:
        return DatabaseAway(
            f"cannot use the database {self}: {first_line(error)}; see that it is running and writable, "
            "or set ECGBATCH_DATABASE_URL"
        )


def _engine(url: sa.URL, patient: bool, read_only: bool) -> Engine:
    """Who has patience learns of a lost connection from a statement that fails, and need not ask beforehand.

    Raises ValueError or SAWarning for options that the driver does not know.
    """
    if url.get_backend_name() != "sqlite":
        _check_options(url)
        arguments = _signs_of_life(url)
        arguments |= {"prepare_threshold": _prepare_threshold(url), "client_encoding": "utf8"}
        options = {"postgresql_readonly": True} if read_only else {}  # else it is for the server to say
        engine = sa.create_engine(url, pool_pre_ping=not patient, connect_args=arguments, execution_options=options)
        sa.event.listen(engine, "begin", _begin_postgresql)
        return engine
    if url.database in (None, "", ":memory:") or "memory" in url.query.values():
        raise ValueError("a database in memory is another one for each process")
    url = _only_to_read(url) if read_only else url
    with warnings.catch_warnings():
        warnings.simplefilter("error", SAWarning)
        engine = sa.create_engine(url, connect_args={"timeout": LOCK_SECONDS})
    engine.dialect.create_connect_args(url)
    sa.event.listen(engine, "connect", _leave_sqlite if read_only else _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _check_options(url: sa.URL) -> None:
    """Raises ValueError unless the options are PostgreSQL's own: those of psycopg are changes to our code."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    try:
        make_conninfo(**{name: str(value) for name, value in url.query.items() if name != "prepare_threshold"})
    except ProgrammingError as error:
        raise ValueError(first_line(error)) from None


def _prepare_threshold(url: sa.URL) -> int | None:
    """After how many uses psycopg prepares a statement on the server: never, for a pooler may change the server."""
    given = str(url.query.get("prepare_threshold", ""))
    return int(given) if given.isdecimal() else None


def _signs_of_life(url: sa.URL) -> dict[str, Any]:
    """What has the driver give up a connection whose other end is silent, unless the URL says otherwise."""
    asked = {"keepalives_idle": SILENT_SECONDS // 3, "keepalives_interval": SILENT_SECONDS // 6, "keepalives_count": 4}
    ours = {"connect_timeout": 10, "tcp_user_timeout": SILENT_SECONDS * 1000} | asked
    return {name: value for name, value in ours.items() if name not in url.query}


def _begin_postgresql(connection: Connection) -> None:
    """Ends a transaction whose client has vanished; for this transaction alone, as a pooler shares the session."""
    if not _only_reads(connection):
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{SILENT_SECONDS}s'")


def _only_to_read(url: sa.URL) -> sa.URL:
    """An SQLite file, which must be there, as one that can only be read."""
    file = quote(str(Path(url.database or "").absolute()))
    return url.set(database=f"file:{file}").update_query_dict({"mode": "ro", "uri": "true"})


def _leave_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: see _begin_sqlite
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes later fails when another has written in between."""
    connection.exec_driver_sql("BEGIN" if _only_reads(connection) else "BEGIN IMMEDIATE")


def _only_reads(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("ecgbatch_reads", False))


def _passing(error: DBAPIError) -> bool:
    """True for a lost connection, a lock, a full disk, a failover; false for a wrong statement."""
    passing = isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
    return passing or error.connection_invalidated or _sqlstate(error) == READ_ONLY_TRANSACTION


def _conflict(error: DBAPIError) -> bool:
    """True when PostgreSQL ended the transaction for the sake of another, which is through by now."""
    return _sqlstate(error) in (SERIALIZATION_FAILURE, DEADLOCK)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
