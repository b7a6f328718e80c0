"""The commands that do and watch the work: worker, flower, reconcile, doctor."""

from dataclasses import replace

import click

from ecgbatch.commands import as_json, command
from ecgbatch.printing import print_rows
from ecgbatch.settings import load


@command(example="ecgbatch worker --processes 4")
@click.option(
    "--processes", type=click.IntRange(min=1), metavar="N", help="Default: one per core on a CPU, one on a GPU."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: ECGBATCH_DEVICE.")
def worker(processes: int | None, device: str | None) -> int:
    """Start workers that score what is enqueued.

    They run until they are told to stop: on SIGTERM or Ctrl-C they finish their chunks and leave, on a second one
    they leave at once.
    """
    from ecgbatch.worker.start import run_worker

    settings = load()
    return run_worker(replace(settings, processes=processes or settings.processes, device=device or settings.device))


@command(example="ecgbatch flower")
def flower() -> None:
    """Watch workers and chunks in the browser.

    Starts Flower on 127.0.0.1, behind a password: whoever reaches it can control the workers.
    """
    from ecgbatch.db.migrate import open_database
    from ecgbatch.worker.app import connected_app
    from ecgbatch.worker.flower import run_flower

    settings = load()
    run_flower(connected_app(settings, open_database(settings.database_url)), settings)


@command(example="ecgbatch reconcile")
def reconcile() -> None:
    """Find lost work and publish it again.

    Publishes again the chunks whose workers fell silent or whose messages are gone. Every worker does that by itself
    now and then.
    """
    from ecgbatch.db.migrate import open_database
    from ecgbatch.worker import queue
    from ecgbatch.worker.app import connected_app

    settings = load()
    database = open_database(settings.database_url)
    lost = queue.reconcile(database, connected_app(settings, database), settings)
    print(f"{lost} lost chunks are published again")


@command(example="ecgbatch doctor --json")
@as_json
def doctor(as_json: bool) -> int:
    """Check everything that scoring needs, and say what to do.

    Looks at database, Redis, model, kernel, reading, device and versions.
    """
    from ecgbatch.worker.doctor import Finding, findings

    found = findings(load())
    print_rows(Finding._fields, [(what, "yes" if well else "NO", finding) for what, well, finding in found], as_json)
    return 0 if all(finding.well for finding in found) else 1
