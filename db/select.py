"""Runs a SELECT that a user wrote, in a transaction that cannot write."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from ecgbatch.db.engine import Database
from ecgbatch.printing import first_line
from ecgbatch.settings import EcgbatchError

READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
"""All that SQLite may do for a SELECT; attaching a file, say, is none of them."""
READING_PRAGMAS = ("table_list", "table_info", "table_xinfo", "index_list", "index_info", "foreign_key_list")

Rows = Iterator[Sequence[Any]]


@contextmanager
def select(
    database: Database, sql: str, parameters: Mapping[str, str | None] | None = None
) -> Iterator[tuple[Sequence[str], Rows]]:
    """The columns of a statement's result and its rows, as they come.

    `parameters` are the values of what the statement calls `:name`; without them a colon is only a colon. Raises
    EcgbatchError when the statement is wrong, is more than one, writes, or gives no rows.
    """
    if not sql.strip():
        raise EcgbatchError("the statement is empty; give a SELECT")
    with database.read() as connection:
        _only_read(connection)
        try:
            result = _execute(connection.execution_options(stream_results=True), sql, parameters)
            yield list(result.keys()), iter(result)
        except ResourceClosedError:
            raise EcgbatchError("the statement gives no rows; `query` is for SELECT") from None
        except (DBAPIError, sqlite3.Warning, ValueError) as error:
            hint = "; `query` is for one SELECT, it only reads" if "not authorized" in str(error) else ""
            raise EcgbatchError(f"the query failed: {first_line(error)}{hint}") from None
        finally:
            connection.invalidate()  # an SQLite connection stays read-only, so nothing else may use it


def parameters_of(sql: str) -> list[str]:
    """What a statement calls `:name`."""
    return list(sa.text(sql).compile().params)


def _execute(connection: Connection, sql: str, parameters: Mapping[str, str | None] | None) -> CursorResult[Any]:
    if parameters is None:
        verbatim = sql.replace("%", "%%") if connection.dialect.name == "postgresql" else sql  # psycopg's placeholders
        return connection.exec_driver_sql(verbatim)
    names = parameters_of(sql)
    if unknown := sorted(parameters.keys() - set(names)):
        raise EcgbatchError(f"the statement has no parameter {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    if missing := sorted(set(names) - parameters.keys()):
        raise EcgbatchError(f"give the statement's parameter {missing[0]!r}: --param {missing[0]}=VALUE")
    untyped = connection.dialect.name == "postgresql"  # which finds the type from where it stands
    values = {name: value if untyped else _number(value) for name, value in parameters.items()}
    binds = [sa.bindparam(name, value, sa.types.NULLTYPE) for name, value in values.items()]
    return connection.execute(sa.text(sql).bindparams(*binds))


def _number(text: str | None) -> str | int | float | None:
    """The number that a text writes, for SQLite, where the text 10 is no number; any other text as it is."""
    for kind in (int, float):
        try:
            if text is not None and str(kind(text)) == text:
                return kind(text)
        except ValueError:
            continue
    return text


def _only_read(connection: Connection) -> None:
    """Lets the transaction do nothing but read. Of the connection's state PostgreSQL's ends with the transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        return
    connection.exec_driver_sql("PRAGMA query_only = ON")
    driver: Any = connection.connection.driver_connection
    driver.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite asks for each thing that a statement would do."""
    pragma = action == sqlite3.SQLITE_PRAGMA and first in READING_PRAGMAS
    json_each = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"  # and the like: no table is written
    extension = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    reads = pragma or json_each or (action in READING and not extension)
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY
