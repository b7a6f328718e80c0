"""The commands that do and watch the work: worker, flower, reconcile, doctor."""

import os
from typing import TYPE_CHECKING

import click

from ecgbatch.commands import as_json, command
from ecgbatch.printing import print_rows
from ecgbatch.settings import Settings, load, variable

if TYPE_CHECKING:
    from ecgbatch.models.weights.model import Model


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
    for name, value in {"processes": processes, "device": device}.items():
        if value is not None:
            os.environ[variable(name)] = str(value)  # the processes load their settings themselves
    os.environ["PYTHONSAFEPATH"] = "1"  # the processes import nothing from the folder that the user stands in
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process is one line of work; set before numpy comes
    import socket

    from ecgbatch.db.migrate import open_database
    from ecgbatch.models.weights.registry import Registry
    from ecgbatch.worker import tasks
    from ecgbatch.worker.app import connected_app

    settings = load()
    open_database(settings.database_url)
    model = Registry(settings.model_dir).find(settings.model)
    app = connected_app(settings)
    started = app.Worker(
        concurrency=settings.processes or _suggested_processes(settings, model),
        hostname=f"ecgbatch-{os.getpid()}@{socket.gethostname()}",
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
    )
    started.start()
    return int(tasks.unable.is_set() or started.exitcode or 0)


def _suggested_processes(settings: Settings, model: "Model") -> int:
    """What `ecgbatch model bench` found best on this machine; else one per core, or one for a GPU."""
    from ecgbatch.models import bench
    from ecgbatch.models.scorer import choose_kernel

    kernel = choose_kernel(model.config, settings.device, settings.kernel)
    if suggested := bench.suggestion(model.fingerprint, settings.device, kernel):
        return suggested.processes
    return bench.cores() if settings.device == "cpu" else 1


@command(example="ecgbatch flower")
def flower() -> None:
    """Watch workers and chunks in the browser.

    Starts Flower on 127.0.0.1, behind a password: whoever reaches it can control the workers.
    """
    from ecgbatch.worker.app import connected_app
    from ecgbatch.worker.flower import run_flower

    settings = load()
    run_flower(connected_app(settings), settings)


@command(example="ecgbatch reconcile")
def reconcile() -> None:
    """Find lost work and publish it again.

    Gives back the chunks whose workers fell silent or whose messages are gone, and publishes them again. Every worker
    does that by itself now and then.
    """
    from ecgbatch.db.migrate import open_database
    from ecgbatch.worker import queue
    from ecgbatch.worker.app import connected_app

    settings = load()
    database = open_database(settings.database_url)
    lost = queue.reconcile(database, connected_app(settings), settings.queue_chunks)
    print(f"{lost} lost chunks were given back")


@command(example="ecgbatch doctor --json")
@as_json
def doctor(as_json: bool) -> int:
    """Check everything that scoring needs, and say what to do.

    Looks at database, Redis, model, kernel, reading, device and versions.
    """
    from ecgbatch.worker.doctor import Finding, examine

    findings = examine(load())
    print_rows(Finding._fields, [(what, "yes" if well else "NO", finding) for what, well, finding in findings], as_json)
    return 0 if all(finding.well for finding in findings) else 1
