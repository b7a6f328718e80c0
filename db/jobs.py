"""The life of a job: opened, filled with records, finished, cancelled, opened again."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import chain, repeat
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db import tallies
from ecgbatch.db.bulk import insert_new
from ecgbatch.db.functions import Now, SecondsBetween, TextIn
from ecgbatch.db.outcomes import LABEL_COLUMNS
from ecgbatch.db.schema import (
    archives,
    chunks,
    failures,
    job_items,
    jobs,
    model_classes,
    models,
    predictions,
    recordings,
)
from ecgbatch.db.terms import ChunkState, JobOptions, JobState, LeadsMissing, Priority, Rescore, Windows
from ecgbatch.records.recording import Flag, Record
from ecgbatch.settings import EcgbatchError

OPEN = (JobState.ENQUEUEING, JobState.RUNNING)

LONGEST_PAUSE = 10.0
"""Seconds without a record scored or failed that still count as work on a job; longer ones do not."""

_SINCE_ACTIVE = SecondsBetween(jobs.c.active_at, Now())
WORKED = jobs.c.worked_seconds + sa.case((_SINCE_ACTIVE < LONGEST_PAUSE, _SINCE_ACTIVE), else_=0.0)
"""The seconds in which the job was worked on, up to now: what its rate is reckoned by."""


def _add_if_new(connection: Connection, table: sa.Table, **values: Any) -> None:
    """Inserts one row, if its key is not there yet."""
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")  # the other one takes a tenth of a second
    connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())


def register_model(
    connection: Connection,
    name: str,
    version: str,
    fingerprint: str,
    config: dict[str, Any],
) -> int:
    """The id of the model with this fingerprint, which is added, with its classes, if it is new."""
    thresholds, labels = config["thresholds"], config.get("labels", LABEL_COLUMNS)
    own = list(labels) != list(LABEL_COLUMNS)
    columns = {f"threshold_{label}": None if own else thresholds[label] for label in LABEL_COLUMNS}
    row = dict(name=name, version=version, fingerprint=fingerprint, config=config, **columns)
    _add_if_new(connection, models, **row, created_at=Now())
    same = sa.select(models.c.id).where(models.c.fingerprint == fingerprint)
    model_id = int(connection.execute(same).scalar_one())
    if own:
        classes = [dict(position=at, name=label, threshold=thresholds[label]) for at, label in enumerate(labels)]
        insert_new(connection, model_classes, classes, model_id=model_id)
    return model_id


def register_archive(connection: Connection, name: str, root: str) -> int:
    """The id of the archive at this root, which is added if it is new."""
    _add_if_new(connection, archives, name=name, root=root)
    return int(connection.execute(sa.select(archives.c.id).where(archives.c.root == root)).scalar_one())


def open_job(connection: Connection, archive_id: int, model_id: int, options: JobOptions) -> tuple[int, bool]:
    """The job that scores this archive by this model in this way, and whether it was there already, unfinished.

    Its id is the same for as long as it is not finished, so that enqueueing twice makes no work twice. Raises
    EcgbatchError for an unfinished job that is to score other records again than `options` say, and while an open job
    of the same archive and model takes other windows, treats missing leads otherwise or differs in keeping embeddings.
    """
    of_both = (jobs.c.archive_id == archive_id) & (jobs.c.model_id == model_id)
    same = _way_is(options)
    _refuse_beside_another_way(connection, of_both, same)
    unfinished = sa.select(jobs.c.id).where(of_both, same, jobs.c.state != JobState.FINISHED).order_by(jobs.c.id)
    job_id = connection.execute(unfinished).scalar()
    if job_id is not None:
        if options.rescore not in (Rescore.NONE, options_of(connection, job_id).rescore):
            raise EcgbatchError(
                f"job {job_id} of this archive and model is not finished; the same command without --rescore goes on "
                "with it, and then --rescore can follow"
            )
        reopen = jobs.update().where(jobs.c.id == job_id)
        opened = dict(state=JobState.ENQUEUEING, priority=options.priority, finished_at=None, active_at=None)
        connection.execute(reopen.values(opened))
        return job_id, True
    row = dict(archive_id=archive_id, model_id=model_id, state=JobState.ENQUEUEING, total=0, created_at=Now())
    insert = jobs.insert().values(row | asdict(options))
    return connection.execute(insert.returning(jobs.c.id)).scalar_one(), False


def _way_is(options: JobOptions) -> sa.ColumnElement[bool]:
    way = (jobs.c.windows == options.windows) & (jobs.c.leads_missing == options.leads_missing)
    return way & (jobs.c.embeddings == options.embeddings)


def _refuse_beside_another_way(
    connection: Connection, archive_and_model: sa.ColumnElement[bool], way: sa.ColumnElement[bool]
) -> None:
    """Two jobs at once that score the same records in two ways would each take the other's predictions for its own."""
    other = sa.select(jobs.c.id, jobs.c.windows, jobs.c.leads_missing, jobs.c.embeddings)
    other = other.where(archive_and_model, ~way, jobs.c.state.in_(OPEN))
    found = connection.execute(other.order_by(jobs.c.id)).first()
    if found is not None:
        raise EcgbatchError(
            f"job {found.id} of this archive and model is not finished and has --windows {found.windows} "
            f"--leads-missing {found.leads_missing} {'--embeddings' if found.embeddings else 'and no --embeddings'}: "
            f"let it go on with that, or stop it (`ecgbatch cancel {found.id}`)"
        )


def options_of(connection: Connection, job_id: int) -> JobOptions:
    """What was asked of the job."""
    columns = (jobs.c.priority, jobs.c.rescore, jobs.c.windows, jobs.c.leads_missing, jobs.c.embeddings)
    priority, rescore, windows, leads_missing, embeddings = connection.execute(
        sa.select(*columns).where(jobs.c.id == job_id)
    ).one()
    way = Windows(windows), LeadsMissing(leads_missing), embeddings
    return JobOptions(Priority(priority), Rescore(rescore), *way)


@dataclass(frozen=True)
class ScoredBefore:
    """What a prediction was made of: the digest of the input, age and sex as they are known of the recording.

    `only_first`: of a longer record, its first ten seconds. `embedded`: its embedding was kept.
    """

    input_sha256: str
    age: float | None
    sex: int | None
    only_first: bool
    embedded: bool


def scored_before(connection: Connection, job_id: int, paths: list[str]) -> dict[str, ScoredBefore]:
    """Those of the records at these paths that the job's model has scored, by path."""
    earlier = jobs.alias("earlier")
    query = sa.select(recordings.c.path, predictions.c.input_sha256, recordings.c.age, recordings.c.sex)
    query = query.add_columns(predictions.c.flags, earlier.c.windows, earlier.c.embeddings)
    query = query.join_from(jobs, recordings, recordings.c.archive_id == jobs.c.archive_id)
    of_model = (predictions.c.recording_id == recordings.c.id) & (predictions.c.model_id == jobs.c.model_id)
    query = query.join(predictions, of_model).join(earlier, earlier.c.id == predictions.c.job_id)
    query = query.where(jobs.c.id == job_id, TextIn(recordings.c.path, paths))
    return {
        row.path: ScoredBefore(
            row.input_sha256,
            row.age,
            row.sex,
            only_first=row.windows == Windows.FIRST and Flag.CROPPED in row.flags.split(","),
            embedded=row.embeddings,
        )
        for row in connection.execute(query)
    }


def add_records(
    connection: Connection,
    job_id: int,
    records: Sequence[Record],
    chunk_size: int,
    rescore: Collection[str] = (),
    smallest: int | None = None,
) -> int:
    """Adds records to a job that has them not yet, in chunks; returns how many were new.

    Those at the paths `rescore` are scored again, with the age and sex that they have now. Chunks are of `chunk_size`;
    the last ones get smaller, down to `smallest`, if that is given.
    """
    archive_id = connection.execute(sa.select(jobs.c.archive_id).where(jobs.c.id == job_id)).scalar_one()
    rows = [dict(path=record.path, age=record.age, sex=record.sex) for record in records]
    insert_new(connection, recordings, rows, archive_id=archive_id)
    new = _not_yet_in_job(connection, job_id, archive_id, [record.path for record in records])
    if not new:
        return 0
    renewed = {id_ for path, id_ in new.items() if path in rescore}
    _renew_age_and_sex(connection, [record for record in records if record.path in rescore], new)
    last = connection.execute(sa.select(sa.func.max(chunks.c.number)).where(chunks.c.job_id == job_id)).scalar()
    first = (last or 0) + 1
    sizes = chunk_sizes(len(new), chunk_size, smallest or chunk_size)
    numbers = range(first, first + len(sizes))
    chunk_of_each = chain.from_iterable(map(repeat, numbers, sizes))
    items = [
        dict(recording_id=id_, chunk=number, rescore=id_ in renewed)
        for id_, number in zip(new.values(), chunk_of_each, strict=True)
    ]
    connection.execute(
        chunks.insert(),
        [dict(job_id=job_id, number=n, state=ChunkState.PENDING, size=s) for n, s in zip(numbers, sizes, strict=True)],
    )
    insert_new(connection, job_items, items, job_id=job_id)
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(total=jobs.c.total + len(new)))
    recount(connection, job_id, numbers)
    return len(new)


def chunk_sizes(records: int, largest: int, smallest: int) -> list[int]:
    """The sizes of chunks: at the end each has a third of what is left, so that all workers end together."""
    sizes: list[int] = []
    while records > 0:
        size = min(records, largest, max(smallest, records // 3))
        sizes.append(size)
        records -= size
    return sizes


def _renew_age_and_sex(connection: Connection, records: Sequence[Record], ids: dict[str, int]) -> None:
    """Takes over what is known of these records now; what is not known their files may tell."""
    rows = [dict(this=ids[r.path], age=r.age, sex=r.sex) for r in records if r.path in ids]
    if rows:
        renew = recordings.update().where(recordings.c.id == sa.bindparam("this"))
        connection.execute(renew.values(age=sa.bindparam("age"), sex=sa.bindparam("sex")), rows)


def _not_yet_in_job(connection: Connection, job_id: int, archive_id: int, paths: list[str]) -> dict[str, int]:
    """The recordings at these paths that are no items of the job: their ids by path, in that order."""
    query = sa.select(recordings.c.path, recordings.c.id)
    query = query.where(recordings.c.archive_id == archive_id, TextIn(recordings.c.path, paths))
    item = (job_items.c.job_id == job_id) & (job_items.c.recording_id == recordings.c.id)
    ids = dict(connection.execute(query.where(~sa.exists().where(item))).all())
    return {path: ids[path] for path in paths if path in ids}


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
        reused=count(predicted, predictions.c.job_id != job_id, ~job_items.c.rescore),
        failed=count(failed, ~sa.exists().where(failures.c.recording_id == predictions.c.recording_id, of_model)),
    )
    connection.execute(chunks.update().where(these).values(**counts))
    any_scored = (chunks.c.scored + chunks.c.reused > 0) | (chunks.c.margin < tallies.FARTHEST)
    if connection.execute(sa.select(sa.exists().where(these, any_scored))).scalar():  # new chunks mostly have none
        tallies.count_anew(connection, job_id, numbers)
    complete = chunks.c.scored + chunks.c.reused + chunks.c.failed == chunks.c.size
    done = chunks.update().where(these, complete).values(state=ChunkState.DONE, lease_until=None)
    return connection.execute(done).rowcount


def all_enqueued(connection: Connection, job_id: int) -> None:
    """Says that all the job's records are in SQL, from when on it can finish."""
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(state=JobState.RUNNING))
    finish_if_complete(connection, job_id)


def finish_if_complete(connection: Connection, job_id: int) -> bool:
    """Ends the job when every chunk is done; says whether it did. The row's lock lets the last chunk see the others."""
    connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id).with_for_update(key_share=True))
    unfinished = sa.exists().where(chunks.c.job_id == job_id, chunks.c.state != ChunkState.DONE)
    finish = jobs.update().where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, ~unfinished)
    finished = dict(state=JobState.FINISHED, finished_at=Now(), worked_seconds=WORKED, active_at=Now())
    return connection.execute(finish.values(finished)).rowcount > 0


def refresh_statistics(connection: Connection) -> None:
    """Tells PostgreSQL of the rows that a job has brought: until it knows, what joins them may take minutes.

    A role that neither owns the tables nor may MAINTAIN them leaves that to the server, which does it within minutes.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "ANALYZE (SKIP_LOCKED) recordings, job_items, chunks, predictions, class_probabilities, failures"
        )


def note_activity(connection: Connection, job_id: int) -> None:
    """Counts the time since the job was last worked on, unless that was a pause."""
    connection.execute(_NOTE_ACTIVITY, {"this_job": job_id})


_NOTE_ACTIVITY = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("this_job"))
    .values(worked_seconds=WORKED, active_at=Now(), started_at=sa.func.coalesce(jobs.c.started_at, Now()))
)


def cancel(connection: Connection, job_id: int) -> None:
    """Stops a job: its waiting chunks go back, its running ones stop at their next batch."""
    stop = jobs.update().where(jobs.c.id == job_id, jobs.c.state.in_(OPEN))
    stopped = connection.execute(stop.values(state=JobState.CANCELLED, finished_at=Now(), worked_seconds=WORKED))
    if stopped.rowcount == 0:
        raise EcgbatchError(f"job {job_id} is not running; `ecgbatch status` lists the jobs")
    waiting = chunks.update().where(chunks.c.job_id == job_id, chunks.c.state == ChunkState.QUEUED)
    connection.execute(waiting.values(state=ChunkState.PENDING))


def retry(connection: Connection, job_id: int, reason: str | None) -> int:
    """Opens a job again without its failures (all, or those of one reason); returns how many those were.

    A cancelled job goes on; a finished one without such failures stays as it is. Raises EcgbatchError while an open job
    of the same archive and model takes other windows.
    """
    of_job = sa.select(jobs.c.archive_id, jobs.c.model_id).where(jobs.c.id == job_id)
    archive_id, model_id = connection.execute(of_job).one()
    of_both = (jobs.c.archive_id == archive_id) & (jobs.c.model_id == model_id)
    _refuse_beside_another_way(connection, of_both, _way_is(options_of(connection, job_id)))
    mine = failures.c.job_id == job_id
    if reason is not None:
        mine &= failures.c.reason == reason
    same_item = (failures.c.job_id == job_items.c.job_id) & (failures.c.recording_id == job_items.c.recording_id)
    of_failures = sa.select(job_items.c.chunk).distinct().join_from(job_items, failures, same_item).where(mine)
    numbers = connection.execute(of_failures).scalars().all()
    removed = connection.execute(failures.delete().where(mine)).rowcount
    cancelled = jobs.c.state == JobState.CANCELLED
    reopened = jobs.c.state.in_((JobState.FINISHED, JobState.CANCELLED)) if removed else cancelled
    reopen = jobs.update().where(jobs.c.id == job_id, reopened)
    connection.execute(reopen.values(state=JobState.RUNNING, finished_at=None, active_at=None))
    again_or_left = chunks.c.number.in_(numbers) | (chunks.c.state == ChunkState.PENDING)
    again = chunks.update().where(chunks.c.job_id == job_id, again_or_left)
    connection.execute(again.values(state=ChunkState.PENDING, attempts=0))
    recount(connection, job_id, numbers)
    finish_if_complete(connection, job_id)
    return removed
