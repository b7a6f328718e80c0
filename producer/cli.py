"""The commands about jobs: run, enqueue, status, failures, retry, cancel."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ecgbatch.printing import print_mapping, print_rows, remark, say
from ecgbatch.settings import EcgbatchError, Settings, load

if TYPE_CHECKING:
    from ecgbatch.db.engine import Database
    from ecgbatch.db.jobs import Progress
    from ecgbatch.models.weights.registry import Model

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
FINISHED_WITH_FAILURES = 3


def register(commands: Commands) -> None:
    """Adds the verbs of this room."""
    run = commands.add_parser(
        "run",
        help="score an archive on this machine, everything included",
        description="Scores an archive on this machine: starts an embedded Redis server and workers, shows progress "
        "and a summary, and stops everything at the end. Interrupted, it goes on where it was at the next call.",
    )
    run.add_argument(
        "archive",
        nargs="?",
        type=Path,
        metavar="ARCHIVE",
        help="its folder; without it 64 synthetic records are made and scored",
    )
    _add_archive_options(run)
    run.set_defaults(run=run_all)

    enqueue = commands.add_parser(
        "enqueue",
        help="make a job of an archive and print its id",
        description="Makes a job of an archive's records and prints its id. The job of an archive and a model that "
        "is not finished is continued, so enqueueing twice scores nothing twice.",
    )
    enqueue.add_argument("archive", type=Path, metavar="ARCHIVE", help="its folder, as workers see it too")
    _add_archive_options(enqueue)
    enqueue.set_defaults(run=run_enqueue)

    status = commands.add_parser(
        "status",
        help="how far jobs are",
        description="Shows how far jobs are: records scored, failed and remaining, rate, time left.",
    )
    status.add_argument("job", nargs="?", type=int, metavar="JOB", help="one job; without it all are shown")
    status.add_argument("--watch", action="store_true", help="follow the job to its end")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)

    failures = commands.add_parser(
        "failures",
        help="what failed in a job, and why",
        description="Lists the records of a job that could not be scored, with stage, reason and detail.",
    )
    failures.add_argument("job", type=int, metavar="JOB", help="the job's id")
    failures.add_argument("--json", action="store_true", help="print JSON")
    failures.set_defaults(run=run_failures)

    retry = commands.add_parser(
        "retry",
        help="try a job's failures again, or go on with a cancelled job",
        description="Tries a job's failed records again once the cause is mended; a cancelled job goes on.",
    )
    retry.add_argument("job", type=int, metavar="JOB", help="the job's id")
    retry.add_argument("--reason", metavar="REASON", help="only the failures of this reason")
    retry.set_defaults(run=run_retry)

    cancel = commands.add_parser(
        "cancel",
        help="stop a job; what it has scored is kept",
        description="Stops a job within one batch of each worker. What it has scored is kept; `retry` goes on with it.",
    )
    cancel.add_argument("job", type=int, metavar="JOB", help="the job's id")
    cancel.set_defaults(run=run_cancel)


def _add_archive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", type=Path, metavar="FILE.csv", help="the records: columns path, age, sex")
    parser.add_argument(
        "--rate", choices=["lr", "hr"], default="lr", help="PTB-XL's 100 Hz (lr) or 500 Hz records (hr)"
    )
    parser.add_argument("--model", metavar="NAME[:VERSION]", help="the model; default: ECGBATCH_MODEL, or the newest")
    parser.add_argument(
        "--priority", choices=["normal", "high"], default="normal", help="high goes ahead of all normal jobs"
    )


def run_all(args: argparse.Namespace) -> int:
    from ecgbatch.db import chunks
    from ecgbatch.producer.run import embedded_redis, follow, workers

    given = _settings(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops everything in order, as Ctrl-C does
    with _archive(args) as root, embedded_redis(given) as settings:
        database, model = _prepare(settings)
        if given.redis_url is None:
            database.write(chunks.give_back_queued)
        try:
            with workers(settings, database) as started:  # which get ready while the archive is listed
                job_id = _enqueue(args, settings, database, model, root)
                progress = _progress(database, job_id)
                if progress.ended and progress.reused == progress.total:
                    scored_before = f"all {progress.total:,} records were scored before by {model.name} {model.version}"
                    say(f"{scored_before}; nothing to do")
                elif not progress.ended:
                    remark(f"to watch it in Flower: ECGBATCH_REDIS_URL={settings.redis_url} ecgbatch flower")
                    progress = follow(database, job_id, started)
        except KeyboardInterrupt:
            remark("what is scored is kept; the same command goes on with the rest")
            raise
        _summarise(database, progress)
    return _exit_status(progress)


def run_enqueue(args: argparse.Namespace) -> int:
    settings = _settings(args)
    root = _existing(args.archive)
    database, model = _prepare(settings)
    job_id = _enqueue(args, settings, database, model, root)
    print(job_id)
    return 0


def run_status(args: argparse.Namespace) -> int:
    from ecgbatch.db import jobs
    from ecgbatch.producer.run import follow

    database = _database(load())
    if args.watch:
        job_id = args.job if args.job is not None else _newest_job(database)
        return _exit_status(follow(database, job_id))
    with database.read() as connection:
        rows = [asdict(progress) for progress in jobs.progress(connection, args.job)]
    if not rows and not args.json:
        print("there are no jobs yet; `ecgbatch enqueue ARCHIVE` makes one")
        return 0
    print_rows(list(rows[0]) if rows else [], [list(row.values()) for row in rows], args.json)
    return 0


def run_failures(args: argparse.Namespace) -> int:
    from ecgbatch.db import jobs

    database = _database(load())
    _progress(database, args.job)
    with database.read() as connection:
        columns, rows = jobs.failures_of(connection, args.job)
        print_rows(columns, rows, args.json)
    return 0


def run_retry(args: argparse.Namespace) -> int:
    from ecgbatch.db import jobs
    from ecgbatch.worker.app import connected_app
    from ecgbatch.worker.queue import fill_queues

    settings = load()
    database = _database(settings)
    _progress(database, args.job)
    app = connected_app(settings)
    removed = database.write(jobs.retry, args.job, args.reason)
    fill_queues(database, app, settings.queue_chunks)
    progress = _progress(database, args.job)
    print(f"job {args.job}: {removed:,} failures to be tried again, {progress.remaining:,} records to go")
    return 0


def run_cancel(args: argparse.Namespace) -> int:
    from ecgbatch.db import jobs

    database = _database(load())
    _progress(database, args.job)
    database.write(jobs.cancel, args.job)
    progress = _progress(database, args.job)
    print(
        f"job {args.job} is cancelled: {progress.scored:,} predictions and {progress.failed:,} failures are kept, "
        f"{progress.remaining:,} records were left; `ecgbatch retry {args.job}` goes on with it"
    )
    return 0


@contextmanager
def _archive(args: argparse.Namespace) -> Iterator[Path]:
    """The archive to score: the one that was named, or a synthetic one beside the database."""
    if args.archive is not None:
        yield _existing(args.archive)
        return
    from ecgbatch.records.synthetic import write_archive

    root = Path("synthetic").resolve()
    if not root.exists():
        write_archive(root)
        remark(f"no ARCHIVE was named: made 64 synthetic records in {root}")
    yield root


def _existing(archive: Path) -> Path:
    """The archive's absolute path, by which every worker finds it."""
    root = archive.expanduser().resolve()
    if not root.is_dir():
        raise EcgbatchError(f"there is no archive {archive}; give the folder that holds the records")
    return root


def _settings(args: argparse.Namespace) -> Settings:
    settings = load()
    return settings if args.model is None else replace(settings, model=args.model)


def _database(settings: Settings) -> "Database":
    from ecgbatch.db.migrate import open_database

    return open_database(settings.database_url)


def _prepare(settings: Settings) -> "tuple[Database, Model]":
    """The database and the model."""
    from ecgbatch.models.weights import registry

    model = registry.find(settings.model)
    return _database(settings), model


def _enqueue(args: argparse.Namespace, settings: Settings, database: "Database", model: "Model", root: Path) -> int:
    """Makes or continues the job and says what it holds; returns its id."""
    from ecgbatch.db.schema import Priority
    from ecgbatch.producer.enqueue import add_records, open_job
    from ecgbatch.producer.progress import ProgressLine
    from ecgbatch.records.archive import find_records
    from ecgbatch.worker.app import connected_app

    records = find_records(root, args.manifest, args.rate)
    records = chain([next(records)], records)  # an archive without records makes no job
    app = connected_app(settings)
    job_id, continued = database.write(open_job, root, model, Priority(args.priority))
    line = ProgressLine()
    try:
        add_records(database, app, settings, job_id, records, lambda n: line.show(f"enqueued {n:,} records"))
    finally:
        line.close()
    progress = _progress(database, job_id)
    remark(
        f"job {job_id}{' (continued)' if continued else ''}: {progress.total:,} records of {root} "
        f"by {model.name} {model.version}, {progress.remaining:,} to score"
    )
    return job_id


def _progress(database: "Database", job_id: int) -> "Progress":
    from ecgbatch.db import jobs

    with database.read() as connection:
        [progress] = jobs.progress(connection, job_id)
    return progress


def _newest_job(database: "Database") -> int:
    from ecgbatch.db import jobs

    with database.read() as connection:
        known = jobs.progress(connection)
    if not known:
        raise EcgbatchError("there are no jobs yet; `ecgbatch enqueue ARCHIVE` makes one")
    return known[-1].job_id


def _summarise(database: "Database", progress: "Progress") -> None:
    from ecgbatch.db import jobs

    with database.read() as connection:
        superclasses = jobs.superclasses(connection, progress.job_id)
    summary: dict[str, Any] = {"job": progress.job_id, "state": progress.state, "records": progress.total}
    summary |= {"scored": progress.scored, "failed": progress.failed}
    if progress.records_per_second is not None:
        summary["records per second"] = progress.records_per_second
    summary |= {f"records with {name}": count for name, count in superclasses.items()}
    summary |= {"results in": str(database), "next": "ecgbatch query superclasses"}
    if progress.failed:
        summary["what failed"] = f"ecgbatch failures {progress.job_id}"
    print_mapping(summary)
    remark("research use only, never for diagnosis")


def _exit_status(progress: "Progress") -> int:
    if progress.state != "finished":
        return 1
    return FINISHED_WITH_FAILURES if progress.failed else 0
