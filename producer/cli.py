"""The commands about jobs: run, enqueue, status, failures, retry, cancel."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ecgbatch.commands import PATH, as_json, columns_by_role, command, if_leads_are_missing
from ecgbatch.printing import print_note, print_rows, say
from ecgbatch.settings import Settings, load

if TYPE_CHECKING:
    from ecgbatch.db.engine import Database
    from ecgbatch.db.reports import Progress
    from ecgbatch.db.terms import JobOptions
    from ecgbatch.models.weights.model import Model

F = TypeVar("F", bound=Callable[..., Any])
FINISHED_WITH_FAILURES = 3

a_job = click.argument("job", type=int, help="The job's id.")


def archive_options(function: F) -> Callable[..., Any]:
    """How an archive's records are found (fields of `Archive`), by which model they are scored, and when."""
    options = (
        click.option("--manifest", type=PATH, metavar="FILE.csv", help="The records: columns path, age, sex."),
        click.option(
            "--columns",
            metavar="path=NAME,...",
            callback=lambda _context, _option, text: columns_by_role(text),
            help="The table's columns for path, age and sex, where they have other names.",
        ),
        click.option(
            "--rate",
            type=click.Choice(["lr", "hr"]),
            default="lr",
            show_default=True,
            help="PTB-XL's 100 Hz (lr) or 500 Hz records (hr).",
        ),
        click.option("--model", metavar="NAME[:VERSION]", help="The model; default: ECGBATCH_MODEL, or the newest."),
        click.option(
            "--priority",
            type=click.Choice(["normal", "high"]),
            default="normal",
            show_default=True,
            help="High goes ahead of all normal jobs.",
        ),
        click.option(
            "--windows",
            type=click.Choice(["first", "all"]),
            default="first",
            show_default=True,
            help="What is scored of a record longer than ten seconds: the first ten, or all, in windows of ten.",
        ),
        click.option(
            "--rescore",
            type=click.Choice(["changed", "all"]),
            help="Also score again what the model has scored before: what has changed since (files, age, sex), or all.",
        ),
        if_leads_are_missing,
        click.option(
            "--embeddings",
            is_flag=True,
            help="Also keep what the network makes of each record (some 300 numbers): `export --embeddings`.",
        ),
        click.option("--dry-run", is_flag=True, help="Only say what is found and what is passed over."),
    )
    decorated = _with_job_options(function)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def _with_job_options(function: F) -> Callable[..., Any]:
    """Hands a command the options that a job is opened with as one, `options`."""

    @wraps(function)
    def command_of_options(
        *, priority: str, rescore: str | None, windows: str, leads_missing: str, embeddings: bool, **rest: Any
    ) -> Any:
        from ecgbatch.db.terms import JobOptions, LeadsMissing, Priority, Rescore, Windows

        way = Windows(windows), LeadsMissing(leads_missing), embeddings
        return function(options=JobOptions(Priority(priority), Rescore(rescore or "none"), *way), **rest)

    return command_of_options


@command(example="ecgbatch run /data/ptb-xl")
@click.argument(
    "archive",
    required=False,
    type=PATH,
    help="Its folder, or one file; without it 64 synthetic records are made and scored.",
)
@archive_options
def run(
    archive: Path | None,
    model: str | None,
    options: "JobOptions",
    dry_run: bool,
    **how: Any,
) -> int:
    """Score an archive on this machine, everything included.

    Starts an embedded Redis server and workers, shows progress and a summary, and stops everything at the end.
    Interrupted, it goes on where it was at the next call.
    """
    from ecgbatch.producer.embedded import embedded_redis

    settings = _settings(model)
    if dry_run:
        from ecgbatch.producer.dry_run import show as dry_run_of
        from ecgbatch.records.archives.finding import Archive

        if archive is None:
            raise click.UsageError("--dry-run needs an ARCHIVE")
        dry_run_of(Archive(_existing(archive), follow_links=settings.follow_links, **how))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops everything in order, as Ctrl-C does
    with embedded_redis(settings) as redis:  # which starts while the rest is imported
        return _run(settings, redis, archive, options, how)


def _run(
    settings: Settings,
    redis: Callable[[], Settings],
    archive: Path | None,
    options: "JobOptions",
    how: Mapping[str, Any],
) -> int:
    """Scores an archive on this machine and shows its job; returns the exit status."""
    from ecgbatch.producer.display import show_job
    from ecgbatch.producer.run import run_archive
    from ecgbatch.records.archives.finding import Archive

    root = None if archive is None else _existing(archive)
    database, network = _prepare(settings)

    def find() -> Archive:
        return Archive(root or _synthetic(), follow_links=settings.follow_links, **how)

    try:
        progress = run_archive(settings, redis, database, network, find, options, forked=True)
    except KeyboardInterrupt:
        print_note("what is scored is kept; the same command goes on with the rest")
        raise
    if progress.reused == progress.total:
        say(f"all {progress.total:,} records were scored before by {network}; nothing to do")
        if options.rescore == "none":
            print_note("--rescore changed looks whether files, ages or sexes have changed since")
    show_job(database, progress.job_id)
    return _exit_status(progress)


@command(example="ecgbatch enqueue /data/ptb-xl --priority high")
@click.argument("archive", type=PATH, help="Its folder, or one file, as workers see it too.")
@archive_options
def enqueue(
    archive: Path,
    model: str | None,
    options: "JobOptions",
    dry_run: bool,
    **how: Any,
) -> None:
    """Make a job of an archive and print its id.

    The job of an archive and a model that is not finished is continued, so enqueueing twice scores nothing twice.
    """
    from ecgbatch.producer.dry_run import show as dry_run_of
    from ecgbatch.producer.enqueue import enqueue_archive
    from ecgbatch.records.archives.finding import Archive

    settings = _settings(model)
    found = Archive(_existing(archive), follow_links=settings.follow_links, **how)
    if dry_run:
        dry_run_of(found)
        return
    database, network = _prepare(settings)
    print(enqueue_archive(settings, database, network, found, options))


@command(example="ecgbatch status --watch")
@click.argument("job", required=False, type=int, help="One job; without it all are shown.")
@click.option("--watch", is_flag=True, help="Follow the job, or all that have not ended, to the end.")
@as_json
def status(job: int | None, watch: bool, as_json: bool) -> int:
    """Show how far jobs are.

    Of all jobs archive, model, counts, rate and time left; of one job its superclasses, flags and failures as well.
    """
    from ecgbatch.producer.display import show_job, show_jobs
    from ecgbatch.producer.following import follow

    database = _database(load())
    if watch:
        return max(map(_exit_status, follow(database, job)), key=[0, FINISHED_WITH_FAILURES, 1].index)
    if job is not None:
        show_job(database, job, as_json)
        return 0
    show_jobs(database, as_json)
    return 0


@command(example="ecgbatch failures 1")
@a_job
@as_json
def failures(job: int, as_json: bool) -> None:
    """List what failed in a job, and why.

    Stage, reason and detail of each record.
    """
    from ecgbatch.db import reports

    database = _database(load())
    _progress(database, job)
    with database.read() as connection:
        columns, rows = reports.failures_of(connection, job)
        print_rows(columns, rows, as_json)


@command(example="ecgbatch retry 1 --reason missing_signal_file")
@a_job
@click.option("--reason", metavar="REASON", help="Only the failures of this reason.")
def retry(job: int, reason: str | None) -> None:
    """Try a job's failures again, or go on with a cancelled job.

    A job's failed records are tried again once the cause is mended; a cancelled job goes on.
    """
    from ecgbatch.db import jobs
    from ecgbatch.worker.app import connected_app
    from ecgbatch.worker.queue import fill_queues

    settings = load()
    database = _database(settings)
    _progress(database, job)
    app = connected_app(settings, database)
    removed = database.write(jobs.retry, job, reason)
    fill_queues(database, app, settings.queue_chunks)
    progress = _progress(database, job)
    print(f"job {job}: {removed:,} failures to be tried again, {progress.remaining:,} records to go")


@command(example="ecgbatch cancel 1")
@a_job
def cancel(job: int) -> None:
    """Stop a job; what it has scored is kept.

    It stops within one batch of each worker; `ecgbatch retry` goes on with it.
    """
    from ecgbatch.db import jobs

    database = _database(load())
    _progress(database, job)
    database.write(jobs.cancel, job)
    progress = _progress(database, job)
    print(
        f"job {job} is cancelled: {progress.scored:,} predictions and {progress.failed:,} failures are kept, "
        f"{progress.remaining:,} records were left; `ecgbatch retry {job}` goes on with it"
    )


def _synthetic() -> Path:
    """A synthetic archive beside the database, made if it is not there."""
    from ecgbatch.records.synthetic import write_archive

    root = Path("synthetic").resolve()
    if not root.exists():
        write_archive(root)
        print_note(f"no ARCHIVE was named: made 64 synthetic records in {root}")
    return root


def _existing(archive: Path) -> Path:
    """The archive's real path, by which every worker finds it."""
    from ecgbatch.records.archives.finding import check_archive
    from ecgbatch.records.remote import url_of

    root = archive if url_of(archive) else Path(os.path.realpath(os.path.expanduser(archive)))
    check_archive(root)
    return root


def _settings(model: str | None) -> Settings:
    settings = load()
    return settings if model is None else replace(settings, model=model)


def _database(settings: Settings) -> "Database":
    from ecgbatch.db.migrate import open_database

    return open_database(settings.database_url)


def _prepare(settings: Settings) -> "tuple[Database, Model]":
    """The database and the model."""
    from ecgbatch.models.weights.registry import Registry

    model = Registry(settings.model_dir).find(settings.model)
    return _database(settings), model


def _progress(database: "Database", job_id: int) -> "Progress":
    from ecgbatch.db import reports

    with database.read() as connection:
        [progress] = reports.progress(connection, job_id)
    return progress


def _exit_status(progress: "Progress") -> int:
    if progress.state != "finished":
        return 1
    return FINISHED_WITH_FAILURES if progress.failed else 0
