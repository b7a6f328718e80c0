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


class SecondsFromNow(FunctionElement[datetime]):
    """The present time plus so many seconds, which may be negative."""

    type = UtcTime()
    inherit_cache = True

    def __init__(self, seconds: "sa.ColumnElement[float] | float") -> None:
        super().__init__(sa.literal(seconds, sa.Float) if isinstance(seconds, (int, float)) else seconds)


@compiles(SecondsFromNow, "sqlite")
def _seconds_from_now_sqlite(element: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({seconds}) || ' seconds')"


@compiles(SecondsFromNow, "postgresql")
def _seconds_from_now_postgresql(element: SecondsFromNow, compiler: SQLCompiler, **options: Any) -> str:
    return f"clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"


class TextIn(FunctionElement[Any]):
    """Whether a text is one of many, which go as one parameter: one parameter for each takes longer than the query.

    Both databases look each up in an index, where there is one: PostgreSQL since it is an array and no rows, SQLite
    since the type is not Boolean, which SQLAlchemy would compare with 1.
    """

    inherit_cache = True

    def __init__(self, text: sa.ColumnElement[str], texts: list[str]) -> None:
        super().__init__(text, sa.literal(texts, sa.JSON))


@compiles(TextIn, "sqlite")
def _text_in_sqlite(element: TextIn, compiler: SQLCompiler, **options: Any) -> str:
    text, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{text} IN (SELECT value FROM json_each({texts}))"


@compiles(TextIn, "postgresql")
def _text_in_postgresql(element: TextIn, compiler: SQLCompiler, **options: Any) -> str:
    text, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{text} = ANY (ARRAY(SELECT json_array_elements_text({texts})))"


class CommitWithoutDisk(FunctionElement[str]):
    """Lets PostgreSQL commit this transaction before it is on disk: only a crash of the server can undo it."""

    type = sa.Text()
    inherit_cache = True


@compiles(CommitWithoutDisk, "sqlite")
def _commit_without_disk_sqlite(element: CommitWithoutDisk, compiler: SQLCompiler, **_: Any) -> str:
    return "NULL"  # synchronous = NORMAL has that meaning for every transaction


@compiles(CommitWithoutDisk, "postgresql")
def _commit_without_disk_postgresql(element: CommitWithoutDisk, compiler: SQLCompiler, **_: Any) -> str:
    return "set_config('synchronous_commit', 'off', true)"


class SecondsBetween(FunctionElement[float]):
    """The seconds from one time to a later one."""

    type = sa.Float()
    inherit_cache = True


@compiles(SecondsBetween, "sqlite")
def _seconds_between_sqlite(element: SecondsBetween, compiler: SQLCompiler, **options: Any) -> str:
    earlier, later = (compiler.process(clause, **options) for clause in element.clauses)
    return f"((julianday({later}) - julianday({earlier})) * 86400)"


@compiles(SecondsBetween, "postgresql")
def _seconds_between_postgresql(element: SecondsBetween, compiler: SQLCompiler, **options: Any) -> str:
    earlier, later = (compiler.process(clause, **options) for clause in element.clauses)
    return f"EXTRACT(EPOCH FROM {later} - {earlier})::float8"


class Least(FunctionElement[float]):
    """The least of several numbers."""

    type = sa.Float()
    inherit_cache = True


@compiles(Least, "sqlite")
def _least_sqlite(element: Least, compiler: SQLCompiler, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"


@compiles(Least, "postgresql")
def _least_postgresql(element: Least, compiler: SQLCompiler, **options: Any) -> str:
    return f"least({compiler.process(element.clauses, **options)})"


class WholePart(FunctionElement[int]):
    """A number of zero or more without what comes after its point."""

    type = sa.Integer()
    inherit_cache = True


@compiles(WholePart, "sqlite")
def _whole_part_sqlite(element: WholePart, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"


@compiles(WholePart, "postgresql")
def _whole_part_postgresql(element: WholePart, compiler: SQLCompiler, **options: Any) -> str:
    return f"floor({compiler.process(element.clauses, **options)})::int"
