"""`ecgbatch run`: everything on one machine, started for one job and stopped at its end."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from ecgbatch import urls
from ecgbatch.db import dispatch, reports
from ecgbatch.db.engine import Database
from ecgbatch.db.reports import Progress
from ecgbatch.db.terms import JobOptions
from ecgbatch.printing import print_note
from ecgbatch.producer.services import workers
from ecgbatch.settings import Settings

if TYPE_CHECKING:
    from ecgbatch.models.weights.model import Model
    from ecgbatch.records.archives.finding import Archive


def run_archive(
    given: Settings,
    redis: Callable[[], Settings],
    database: Database,
    model: "Model",
    archive: "Callable[[], Archive]",
    options: JobOptions,
    forked: bool = False,
) -> Progress:
    """Scores an archive on this machine and shows how far it is, on standard error; returns the job as it ended.

    `redis` waits for the server and adds it to the settings; `archive` is asked for when the workers are on their way;
    `forked` as `services.workers` takes it. Interrupted, it stops what it started; the next call goes on. Raises
    EcgbatchError when it cannot be done.
    """
    if forked:
        import_module("ecgbatch.worker.start")  # what the worker begins with, while the server starts
    settings = redis()
    if given.redis_url is None:
        database.write(dispatch.unqueue_all)
    with workers(settings, database, forked) as started:  # which get ready while all this is done
        from ecgbatch.producer.enqueue import enqueue_archive
        from ecgbatch.producer.following import follow

        job_id = enqueue_archive(settings, database, model, archive(), options)
        with database.read() as connection:
            [progress] = reports.progress(connection, job_id)
        if not progress.ended:
            print_note(f"to watch it in Flower: {_flower_command(given, settings)}")
            [progress] = follow(database, job_id, started.check)
    return progress


def _flower_command(given: Settings, used: Settings) -> str:
    """What to type to see this run in Flower; it holds no password."""
    if given.redis_url is not None:
        return "ecgbatch flower"
    url, file = urls.without_password(used.redis_url or ""), used.redis_password_file
    return f"ECGBATCH_REDIS_URL={url} ECGBATCH_REDIS_PASSWORD_FILE={file} ecgbatch flower"
