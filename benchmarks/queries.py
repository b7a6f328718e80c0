"""Questions about a large job: every stored query, of all jobs and of one, until its first row and until its last;
then its export into each kind of file, and the most memory that the command takes.

The job is written by bulk SQL, as a finished run would have left it; beside it there is one of a thousand records.
"""

import argparse
import time
from typing import Any, NamedTuple

import sqlalchemy as sa
from measure import database, median, show, workplace
from sqlalchemy.engine import Connection

from ecgbatch.db import jobs, tallies
from ecgbatch.db.cli import stored_queries
from ecgbatch.db.engine import Database
from ecgbatch.db.export import SUFFIXES
from ecgbatch.db.migrate import upgrade
from ecgbatch.db.schema import chunks
from ecgbatch.db.select import select
from ecgbatch.db.terms import JobOptions

CHUNK = 256
THRESHOLDS = {"norm": 0.45, "mi": 0.35, "sttc": 0.4, "cd": 0.4, "hyp": 0.3}
SMALL_JOB = 1000

RECORDS = {
    "sqlite": "WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < {records})",
    "postgresql": "WITH n AS (SELECT generate_series(0, {records} - 1) AS k)",
}
CHANCE = {"sqlite": "(abs(random()) % 1000000) / 1e6", "postgresql": "random()"}
"""A number between 0 and 1, another one for each row."""

FILL = (
    """INSERT INTO recordings (id, archive_id, path, age, sex, format) {n}
    SELECT {first} + k, {job}, 'records/' || k, 20 + k % 70, k % 2, 'wfdb' FROM n""",
    "INSERT INTO job_items (job_id, recording_id, chunk) {n} SELECT {job}, {first} + k, 1 + k / {chunk} FROM n",
    """INSERT INTO failures {n}
    SELECT {job}, {first} + k, 'read', CASE k % 3 WHEN 0 THEN 'truncated' ELSE 'no_signal' END, 'record ' || k, 1,
    CURRENT_TIMESTAMP FROM n WHERE k % 100 = 99""",
    """INSERT INTO predictions {n}
    SELECT {first} + k, 1, {job}, {chance}, {chance}, {chance}, {chance}, {chance},
           '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
           CASE WHEN k % 50 = 0 THEN 'clipped' WHEN k % 50 = 1 THEN 'age_missing,resampled' ELSE '' END,
           CURRENT_TIMESTAMP, 'machine-' || (k % 8), {chance}, {chance} FROM n WHERE k % 100 <> 99""",
    """INSERT INTO chunks (job_id, number, state, size, scored, failed, attempts)
    SELECT {job}, i.chunk, 'done', COUNT(*), COUNT(p.recording_id), COUNT(*) - COUNT(p.recording_id), 1
    FROM job_items i LEFT JOIN predictions p ON p.recording_id = i.recording_id
    WHERE i.job_id = {job} GROUP BY i.chunk""",
    """INSERT INTO job_workers SELECT job_id, worker, COUNT(*), MIN(scored_at), MAX(scored_at) FROM predictions
    WHERE job_id = {job} GROUP BY job_id, worker""",
)


class Answer(NamedTuple):
    """Seconds until the first row and until the last."""

    first: float
    last: float
    rows: int


def fill(connection: Connection, records: int, first: int) -> int:
    """A finished job of so many records, whose ids begin at `first`."""
    dialect = connection.dialect.name
    archive = jobs.register_archive(connection, f"archive {first}", f"/archives/{first}")
    model = jobs.register_model(connection, "a-model", "1", "fingerprint", {"thresholds": THRESHOLDS})
    job, _ = jobs.open_job(connection, archive, model, JobOptions())
    names = dict(n=RECORDS[dialect].format(records=records), chance=CHANCE[dialect], job=job, first=first, chunk=CHUNK)
    for statement in FILL:
        connection.execute(sa.text(statement.format(**names)))
    numbers = connection.execute(sa.select(chunks.c.number).where(chunks.c.job_id == job)).scalars().all()
    for start in range(0, len(numbers), 1000):
        tallies.count_anew(connection, job, numbers[start : start + 1000])
    connection.exec_driver_sql(f"UPDATE jobs SET total = {records} WHERE id = {job}")
    jobs.all_enqueued(connection, job)
    return job


def ask(database: Database, sql: str, job: str | None) -> Answer:
    began = time.perf_counter()
    first = 0.0
    count = 0
    with select(database, sql, {"job": job}) as (_, rows):
        for _ in rows:
            first = first or time.perf_counter() - began
            count += 1
    last = time.perf_counter() - began
    return Answer(first or last, last, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind in args.databases:
        with database(kind) as url:
            filled = Database(url)
            upgrade(filled)
            large = filled.write(fill, args.records, 1)
            small = filled.write(fill, SMALL_JOB, args.records + 1)
            filled.write(jobs.refresh_statistics)  # as the worker does that ends a job
            for name, sql in stored_queries().items():
                for which, job in (("all", None), ("the large one", large), ("the small one", small)):
                    answers = [ask(filled, sql, None if job is None else str(job)) for _ in range(args.repeats)]
                    first, last = (median([answer[at] for answer in answers]) for at in (0, 1))
                    row = {"database": kind, "question": name, "of jobs": which, "rows": answers[0].rows}
                    rows.append(row | {"first row, s": first, "all rows, s": last, "peak memory, MB": None})
            filled.engine.dispose()
            with workplace(database_url=url) as place:
                for suffix in SUFFIXES:
                    seconds, memory = place.run_measured("export", str(large), f"out{suffix}")
                    row = {"database": kind, "question": f"export {suffix}", "of jobs": "the large one"}
                    row |= {"rows": args.records, "first row, s": None, "all rows, s": seconds}
                    rows.append(row | {"peak memory, MB": memory})
    show("queries", rows, records=args.records, repeats=args.repeats)


if __name__ == "__main__":
    main()
