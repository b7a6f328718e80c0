"""SQL functions that SQLite and PostgreSQL write differently."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from ecgbatch.db.schema import UtcTime


class Now(FunctionElement[datetime]):
    """The present time by the one clock that all machines share: the database server's."""

    type = UtcTime()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_sqlite(element: Now, compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # as SQLAlchemy writes times


@compiles(Now, "postgresql")
def _now_postgresql(element: Now, compiler: SQLCompiler, **_: Any) -> str:
    return "clock_timestamp()"


class After(FunctionElement[datetime]):
    """The present time and some seconds more, or less if they are negative."""

    type = UtcTime()
    inherit_cache = True

    def __init__(self, seconds: "sa.ColumnElement[float] | float") -> None:
        super().__init__(sa.literal(seconds, sa.Float) if isinstance(seconds, (int, float)) else seconds)


@compiles(After, "sqlite")
def _after_sqlite(element: After, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({seconds}) || ' seconds')"


@compiles(After, "postgresql")
def _after_postgresql(element: After, compiler: SQLCompiler, **options: Any) -> str:
    return f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"


class OneOf(FunctionElement[Any]):
    """Whether a text is one of many: all in one parameter, since one for each takes longer than the query.

    Both databases look each up in an index, where there is one: PostgreSQL since it is an array and no rows, SQLite
    since the type is not Boolean, which SQLAlchemy would compare with 1.
    """

    inherit_cache = True

    def __init__(self, text: sa.ColumnElement[str], texts: list[str]) -> None:
        super().__init__(text, sa.literal(texts, sa.JSON))


@compiles(OneOf, "sqlite")
def _one_of_sqlite(element: OneOf, compiler: SQLCompiler, **options: Any) -> str:
    text, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{text} IN (SELECT value FROM json_each({texts}))"


@compiles(OneOf, "postgresql")
def _one_of_postgresql(element: OneOf, compiler: SQLCompiler, **options: Any) -> str:
    text, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{text} = ANY (ARRAY(SELECT json_array_elements_text({texts})))"


class NeedNotLast(FunctionElement[str]):
    """Ends the transaction before it is on PostgreSQL's disk: a crash of the server, and nothing else, can undo it."""

    type = sa.Text()
    inherit_cache = True


@compiles(NeedNotLast, "sqlite")
def _need_not_last_sqlite(element: NeedNotLast, compiler: SQLCompiler, **_: Any) -> str:
    return "NULL"  # synchronous = NORMAL has that meaning for every transaction


@compiles(NeedNotLast, "postgresql")
def _need_not_last_postgresql(element: NeedNotLast, compiler: SQLCompiler, **_: Any) -> str:
    return "set_config('synchronous_commit', 'off', true)"
