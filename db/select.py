"""Runs a SELECT that a user wrote, in a transaction that cannot write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, ResourceClosedError

from ecgbatch.db.engine import Database, first_line
from ecgbatch.settings import EcgbatchError

READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
}


@contextmanager
def select(database: Database, sql: str) -> Iterator[tuple[Sequence[str], Iterator[Sequence[Any]]]]:
    """The columns of a statement's result and its rows, as they come.

    Raises EcgbatchError when the statement is wrong, writes, or gives no rows.
    """
    with database.read() as connection:
        connection.exec_driver_sql(READ_ONLY[connection.dialect.name])
        connection.commit()
        verbatim = sql if database.is_sqlite else sql.replace("%", "%%")  # psycopg's parameters start with %
        try:
            result = connection.execution_options(stream_results=True).exec_driver_sql(verbatim)
            yield list(result.keys()), iter(result)
        except ResourceClosedError:
            raise EcgbatchError("the statement gives no rows; `query` is for SELECT") from None
        except DBAPIError as error:
            raise EcgbatchError(f"the query failed: {first_line(error)}") from None
        finally:
            connection.invalidate()  # the connection stays read-only, so nothing else may use it
