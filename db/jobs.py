"""Jobs: what is to be scored, by which model, and how far it is."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from ecgbatch.db.functions import Now, OneOf
from ecgbatch.db.schema import (
    ChunkState,
    JobState,
    Priority,
    archives,
    chunks,
    failures,
    job_items,
    jobs,
    models,
    predictions,
    recordings,
)
from ecgbatch.settings import EcgbatchError

OPEN = (JobState.ENQUEUEING, JobState.RUNNING)


@dataclass(frozen=True)
class Progress:
    """One row of the view job_progress: counts are records, `scored` includes the `reused`."""

    job_id: int
    state: str
    total: int
    scored: int
    reused: int
    failed: int
    remaining: int
    records_per_second: float | None

    @property
    def ended(self) -> bool:
        return self.state in (JobState.FINISHED, JobState.CANCELLED)


def insert_new(
    connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], at: str | None = None, **alike: Any
) -> int:
    """Inserts rows whose keys are not there yet and returns how many those were.

    `alike` are the columns that all rows share, and the column `at` gets the present time. Values are numbers and
    texts; there are two columns at least.
    """
    if not rows:
        return 0
    insert = _insert(connection.dialect, table.name, tuple(rows[0]), tuple(alike), at)
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(insert, {"rows": json.dumps(rows), **alike}).rowcount
    values, same = itemgetter(*rows[0]), tuple(alike.values())
    return connection.exec_driver_sql(insert, [values(row) + same for row in rows]).rowcount


@cache
def _insert(dialect: sa.Dialect, table: str, columns: Sequence[str], alike: Sequence[str], at: str | None) -> str:
    """The statement as the driver takes it: what SQLAlchemy does for each row takes longer than the row.

    PostgreSQL gets all rows at once, as JSON: that takes it half as long as a statement a row, and the client a fourth.
    """
    times = {at: str(Now().compile(dialect=dialect))} if at else {}
    into = f"INSERT INTO {table} ({', '.join([*columns, *alike, *times])})"
    if dialect.name == "postgresql":
        values = ", ".join([*columns, *(f"%({name})s" for name in alike), *times.values()])
        source = f"SELECT {values} FROM json_populate_recordset(NULL::{table}, %(rows)s)"
    else:
        source = f"VALUES ({', '.join(['?'] * len([*columns, *alike]) + list(times.values()))})"
    return f"{into} {source} ON CONFLICT DO NOTHING"


def _add_if_new(connection: Connection, table: sa.Table, **values: Any) -> None:
    """Inserts one row, if its key is not there yet."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(insert(table).values(values).on_conflict_do_nothing())


def register_model(
    connection: Connection,
    name: str,
    version: str,
    fingerprint: str,
    config: dict[str, Any],
) -> int:
    """The id of the model with this fingerprint, which is added if it is new."""
    row = dict(name=name, version=version, fingerprint=fingerprint, config=config)
    _add_if_new(connection, models, **row, created_at=Now())
    same = sa.select(models.c.id).where(models.c.fingerprint == fingerprint)
    return int(connection.execute(same).scalar_one())


def register_archive(connection: Connection, name: str, root: str) -> int:
    """The id of the archive at this root, which is added if it is new."""
    _add_if_new(connection, archives, name=name, root=root)
    return int(connection.execute(sa.select(archives.c.id).where(archives.c.root == root)).scalar_one())


def open_job(connection: Connection, archive_id: int, model_id: int, priority: Priority) -> tuple[int, bool]:
    """The job that scores this archive by this model, and whether it was there already, unfinished.

    Its id is the same for as long as it is not finished, so that enqueueing twice makes no work twice.
    """
    same = (jobs.c.archive_id == archive_id) & (jobs.c.model_id == model_id)
    unfinished = sa.select(jobs.c.id).where(same, jobs.c.state != JobState.FINISHED).order_by(jobs.c.id)
    job_id = connection.execute(unfinished).scalar()
    if job_id is not None:
        reopen = jobs.update().where(jobs.c.id == job_id)
        connection.execute(reopen.values(state=JobState.ENQUEUEING, priority=priority, finished_at=None))
        return job_id, True
    row = dict(archive_id=archive_id, model_id=model_id, priority=priority, total=0)
    insert = jobs.insert().values(**row, state=JobState.ENQUEUEING, created_at=Now())
    return connection.execute(insert.returning(jobs.c.id)).scalar_one(), False


def add_records(
    connection: Connection,
    job_id: int,
    records: Sequence[tuple[str, float | None, int | None]],
    chunk_size: int,
) -> int:
    """Adds records (path, age, sex) to a job that has them not yet, in chunks; returns how many were new."""
    archive_id = connection.execute(sa.select(jobs.c.archive_id).where(jobs.c.id == job_id)).scalar_one()
    rows = [dict(path=path, age=age, sex=sex) for path, age, sex in records]
    insert_new(connection, recordings, rows, archive_id=archive_id)
    new = _not_yet_in_job(connection, job_id, archive_id, [path for path, _, _ in records])
    if not new:
        return 0
    last = connection.execute(sa.select(sa.func.max(chunks.c.number)).where(chunks.c.job_id == job_id)).scalar()
    first = (last or 0) + 1
    items = [dict(recording_id=id_, chunk=first + n // chunk_size) for n, id_ in enumerate(new)]
    numbers = range(first, items[-1]["chunk"] + 1)
    sizes = [min(chunk_size, len(new) - k * chunk_size) for k in range(len(numbers))]
    connection.execute(
        chunks.insert(),
        [dict(job_id=job_id, number=n, state=ChunkState.PENDING, size=s) for n, s in zip(numbers, sizes, strict=True)],
    )
    insert_new(connection, job_items, items, job_id=job_id)
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(total=jobs.c.total + len(new)))
    recount(connection, job_id, numbers)
    return len(new)


def _not_yet_in_job(connection: Connection, job_id: int, archive_id: int, paths: list[str]) -> list[int]:
    """The ids of the recordings at these paths that are no items of the job, in the order of the paths, each once."""
    query = sa.select(recordings.c.path, recordings.c.id)
    query = query.where(recordings.c.archive_id == archive_id, OneOf(recordings.c.path, paths))
    item = (job_items.c.job_id == job_id) & (job_items.c.recording_id == recordings.c.id)
    ids = dict(connection.execute(query.where(~sa.exists().where(item))).all())
    return [ids[path] for path in dict.fromkeys(paths) if path in ids]


def recount(connection: Connection, job_id: int, numbers: Sequence[int]) -> int:
    """Counts the ends of the chunks' records anew; those whose records all have one are done: how many."""
    model_id = sa.select(jobs.c.model_id).where(jobs.c.id == job_id).scalar_subquery()
    items = (job_items.c.job_id == job_id) & (job_items.c.chunk == chunks.c.number)
    of_model = predictions.c.model_id == model_id
    predicted = job_items.join(predictions, (predictions.c.recording_id == job_items.c.recording_id) & of_model)
    failed = job_items.join(
        failures, (failures.c.recording_id == job_items.c.recording_id) & (failures.c.job_id == job_id)
    )

    def count(source: sa.Join, *where: sa.ColumnElement[bool]) -> Any:
        return sa.select(sa.func.count()).select_from(source).where(items, *where).scalar_subquery()

    these = (chunks.c.job_id == job_id) & chunks.c.number.in_(numbers)
    counts = dict(
        scored=count(predicted, predictions.c.job_id == job_id),
        reused=count(predicted, predictions.c.job_id != job_id),
        failed=count(failed, ~sa.exists().where(failures.c.recording_id == predictions.c.recording_id, of_model)),
    )
    connection.execute(chunks.update().where(these).values(**counts))
    complete = chunks.c.scored + chunks.c.reused + chunks.c.failed == chunks.c.size
    done = chunks.update().where(these, complete).values(state=ChunkState.DONE, lease_until=None)
    return connection.execute(done).rowcount


def all_enqueued(connection: Connection, job_id: int) -> None:
    """Says that all the job's records are in SQL, from when on it can finish."""
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(state=JobState.RUNNING))
    finish_if_complete(connection, job_id)


def finish_if_complete(connection: Connection, job_id: int) -> None:
    """Ends the job when every chunk is done; the row's lock lets the last chunk see the others."""
    connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id).with_for_update(key_share=True))
    unfinished = sa.exists().where(chunks.c.job_id == job_id, chunks.c.state != ChunkState.DONE)
    finish = jobs.update().where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, ~unfinished)
    connection.execute(finish.values(state=JobState.FINISHED, finished_at=Now()))


def cancel(connection: Connection, job_id: int) -> None:
    """Stops a job: its waiting chunks go back, its running ones stop at their next batch."""
    stop = jobs.update().where(jobs.c.id == job_id, jobs.c.state.in_(OPEN))
    stopped = connection.execute(stop.values(state=JobState.CANCELLED, finished_at=Now()))
    if stopped.rowcount == 0:
        raise EcgbatchError(f"job {job_id} is not running; `ecgbatch status` lists the jobs")
    waiting = chunks.update().where(chunks.c.job_id == job_id, chunks.c.state == ChunkState.QUEUED)
    connection.execute(waiting.values(state=ChunkState.PENDING))


def retry(connection: Connection, job_id: int, reason: str | None) -> int:
    """Opens a job again without its failures (all, or those of one reason); returns how many those were."""
    mine = (
        failures.c.job_id == job_id if reason is None else (failures.c.job_id == job_id) & (failures.c.reason == reason)
    )
    again = (
        sa.select(job_items.c.chunk)
        .distinct()
        .join_from(
            job_items,
            failures,
            (failures.c.job_id == job_items.c.job_id) & (failures.c.recording_id == job_items.c.recording_id),
        )
    )
    numbers = connection.execute(again.where(mine)).scalars().all()
    removed = connection.execute(failures.delete().where(mine)).rowcount
    again_or_left = chunks.c.number.in_(numbers) | (chunks.c.state == ChunkState.PENDING)
    reopen = chunks.update().where(chunks.c.job_id == job_id, again_or_left)
    connection.execute(reopen.values(state=ChunkState.PENDING, attempts=0))
    recount(connection, job_id, numbers)
    ended = jobs.update().where(jobs.c.id == job_id, jobs.c.state.in_((JobState.FINISHED, JobState.CANCELLED)))
    connection.execute(ended.values(state=JobState.RUNNING, finished_at=None))
    finish_if_complete(connection, job_id)
    return removed


def progress(connection: Connection, job_id: int | None = None) -> list[Progress]:
    """How far jobs are: one, or all, the newest last; raises EcgbatchError when there is no such job."""
    where = "" if job_id is None else "WHERE job_id = :job_id"
    query = sa.text(f"SELECT * FROM job_progress {where} ORDER BY job_id")
    rows = connection.execute(query, {} if job_id is None else {"job_id": job_id}).mappings()
    found = [Progress(**row) for row in rows]
    if job_id is not None and not found:
        raise EcgbatchError(f"there is no job {job_id}; `ecgbatch status` lists the jobs")
    return found


def failures_of(connection: Connection, job_id: int) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
    """The columns and rows of what failed in a job."""
    columns = [failures.c[name] for name in ("stage", "reason", "detail", "attempts", "failed_at")]
    query = sa.select(recordings.c.path, *columns).join_from(failures, recordings)
    result = connection.execute(query.where(failures.c.job_id == job_id).order_by(recordings.c.path))
    return list(result.keys()), iter(result)


def model_fingerprint(connection: Connection, job_id: int) -> str:
    """The fingerprint of the model that scores a job."""
    query = sa.select(models.c.fingerprint).join_from(jobs, models).where(jobs.c.id == job_id)
    return str(connection.execute(query).scalar_one())


def probabilities(connection: Connection, job_id: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Path and probabilities, NORM, MI, STTC, CD, HYP, of each record that the job's model has scored, as they come."""
    scored = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(
        predictions,
        (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == jobs.c.model_id),
    )
    columns = [predictions.c[name] for name in ("norm", "mi", "sttc", "cd", "hyp")]
    records = scored.join(recordings, recordings.c.id == job_items.c.recording_id)
    query = sa.select(recordings.c.path, *columns).select_from(records).where(job_items.c.job_id == job_id)
    for path, *values in connection.execute(query.execution_options(yield_per=1000)):
        yield path, tuple(values)


def superclasses(connection: Connection, job_id: int) -> dict[str, int]:
    """How many of a job's records have each superclass, at the thresholds of its model."""
    job = sa.select(models.c.id, models.c.config).join_from(jobs, models).where(jobs.c.id == job_id)
    model_id, config = connection.execute(job).one()
    scored = job_items.join(
        predictions,
        (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == model_id),
    )
    counts = [
        sa.func.count().filter(predictions.c[name] >= threshold).label(name.upper())
        for name, threshold in config["thresholds"].items()
    ]
    query = sa.select(*counts).select_from(scored).where(job_items.c.job_id == job_id)
    return dict(connection.execute(query).mappings().one())
