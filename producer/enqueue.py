"""Makes a job of an archive's records: streamed into SQL in chunks, published as fast as workers take them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from celery import Celery
from sqlalchemy.engine import Connection

from ecgbatch.db import jobs, reports
from ecgbatch.db.engine import Database
from ecgbatch.db.jobs import ScoredBefore
from ecgbatch.db.terms import JobOptions, Rescore, Windows
from ecgbatch.models.weights.model import Model
from ecgbatch.printing import print_note
from ecgbatch.producer.progress import ProgressLine
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.leads import LEAD_SETS
from ecgbatch.records.paths import write_down
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Record, RecordError
from ecgbatch.records.remote import url_of
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.app import connected_app
from ecgbatch.worker.queue import fill_queues

CHUNKS_PER_TRANSACTION = 16
MOST_KINDS_SAID = 5
SMALLEST_CHUNK = 8
"""Small archives and the end of large ones are cut finer, down to this, so that all workers end together."""


def open_job(connection: Connection, root: Path, model: Model, options: JobOptions) -> tuple[int, bool]:
    """The id of the job that scores the archive by the model, and whether it continues an unfinished one."""
    archive_id = jobs.register_archive(connection, write_down(root.name), write_down(url_of(root) or str(root)))
    model_id = jobs.register_model(connection, model.name, model.version, model.fingerprint, model.description)
    return jobs.open_job(connection, archive_id, model_id, options)


@dataclass
class Enqueued:
    """How many records an archive's source gave, and of how many it told no age or no sex."""

    seen: int = 0
    without_age: int = 0
    without_sex: int = 0

    def count(self, records: Sequence[Record]) -> None:
        """Counts some more."""
        self.seen += len(records)
        self.without_age += sum(record.age is None for record in records)
        self.without_sex += sum(record.sex is None for record in records)


def add_records(
    database: Database,
    app: Celery,
    settings: Settings,
    job_id: int,
    root: Path,
    records: Iterable[Record],
    on_progress: Callable[[int], None],
) -> Enqueued:
    """Adds the records of the archive at `root` to a job.

    Workers begin with the first while the last are still being listed. Memory does not grow with the
    archive. Interrupted, the job is continued by the next call.
    """
    records = iter(records)
    enqueued = Enqueued()
    while batch := list(islice(records, CHUNKS_PER_TRANSACTION * settings.chunk_size)):
        size = min(settings.chunk_size, max(SMALLEST_CHUNK, len(batch) // CHUNKS_PER_TRANSACTION))
        is_last = len(batch) < CHUNKS_PER_TRANSACTION * settings.chunk_size
        again = _to_rescore(database, settings, job_id, root, batch)
        smallest = min(size, SMALLEST_CHUNK) if is_last else None
        database.write(jobs.add_records, job_id, batch, size, again, smallest)
        fill_queues(database, app, settings.queue_chunks)
        enqueued.count(batch)
        on_progress(enqueued.seen)
    database.write(jobs.all_enqueued, job_id)
    return enqueued


def _to_rescore(database: Database, settings: Settings, job_id: int, root: Path, records: Sequence[Record]) -> set[str]:
    """The paths of those records that are scored again although the job's model has scored them before."""
    with database.read() as connection:
        asked = jobs.options_of(connection, job_id)
        if asked.rescore == Rescore.NONE and asked.windows == Windows.FIRST and not asked.embeddings:
            return set()
        before = jobs.scored_before(connection, job_id, [record.path for record in records])
    scored = [record for record in records if record.path in before]
    if asked.rescore == Rescore.ALL:
        return {record.path for record in scored}
    again = {record.path for record in scored if asked.windows == Windows.ALL and before[record.path].only_first}
    again |= {record.path for record in scored if asked.embeddings and not before[record.path].embedded}
    if asked.rescore == Rescore.CHANGED:
        again |= {r.path for r in scored if r.path not in again and _has_changed(settings, root, r, before[r.path])}
    return again


def _has_changed(settings: Settings, root: Path, record: Record, before: ScoredBefore) -> bool:
    """Whether the record's files, or its age or sex as the archive tells them now, are not what was scored."""
    if record.age not in (None, before.age) or record.sex not in (None, before.sex):
        return True
    try:
        recording = read(root, record.path, min_seconds=0, follow_links=settings.follow_links, lead_sets=LEAD_SETS)
    except RecordError:
        return True
    return recording.sha256 != before.input_sha256


def enqueue_archive(settings: Settings, database: Database, model: Model, archive: Archive, options: JobOptions) -> int:
    """Makes or continues the job of an archive and a model and says what it holds; returns its id.

    Raises EcgbatchError when there is nothing to score, Redis does not answer, or the windows of records are asked of a
    model that tells classes of its own: they are kept of the superclasses alone.
    """
    if options.windows == Windows.ALL and not model.tells_superclasses:
        raise EcgbatchError(f"{model} tells classes of its own, and windows are kept of the superclasses alone")
    records = archive.records()  # which raises before there is a job if there is nothing to score
    app = connected_app(settings, database)
    job_id, continued = database.write(open_job, archive.root, model, options)
    line = ProgressLine()
    try:
        enqueued = add_records(
            database, app, settings, job_id, archive.root, records, lambda n: line.show("enqueued", [f"{n:,} records"])
        )
    finally:
        line.close()
    with database.read() as connection:
        [progress] = reports.progress(connection, job_id)
    print_note(
        f"job {job_id}{' (continued)' if continued else ''}: {progress.total:,} records "
        f"of {url_of(archive.root) or archive.root} by {model.name} {model.version}, {progress.remaining:,} to score"
    )
    _say_what_is_missing(archive, enqueued)
    return job_id


def _say_what_is_missing(archive: Archive, enqueued: Enqueued) -> None:
    """What was passed over, and how many records tell no age or sex."""
    passed_over = list(archive.passed_over)
    for kind, count, example in passed_over[:MOST_KINDS_SAID]:
        print_note(f"passed over: {count:,} {kind}, as {example}")
    if (more := len(passed_over) - MOST_KINDS_SAID) > 0:
        print_note(f"passed over: {more} kinds more, which --dry-run lists")
    if enqueued.without_age or enqueued.without_sex:
        table = archive.table_above()
        print_note(
            f"of {enqueued.seen:,} records {enqueued.without_age:,} have no age and {enqueued.without_sex:,} no sex in "
            f"{archive.source()}: where their files do not tell them, the training's means are taken, and flagged"
            + (f"; {table} may tell them: give its folder as the archive" if table else "")
        )
