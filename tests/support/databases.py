"""What tests ask a database."""

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.select import select


def progress(database: Database, job_id: int) -> reports.Progress:
    with database.read() as connection:
        return reports.progress(connection, job_id)[0]


def rows(database: Database, sql: str) -> list[tuple[object, ...]]:
    with select(database, sql) as (_, found):
        return [tuple(row) for row in found]
