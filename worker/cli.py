"""The commands that do and watch the work: worker, flower, reconcile, doctor."""

import argparse
import os
import secrets
import socket
from typing import TYPE_CHECKING

from ecgbatch.printing import print_rows
from ecgbatch.settings import EcgbatchError, Settings, load, variable

if TYPE_CHECKING:
    from ecgbatch.models.weights.registry import Model


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs of this room."""
    worker = commands.add_parser(
        "worker",
        help="start workers that score what is enqueued",
        description="Starts worker processes that score what is enqueued, until they are told to stop: on SIGTERM "
        "or Ctrl-C they finish their chunks and leave, on a second one they leave at once.",
    )
    worker.add_argument("--processes", type=int, metavar="N", help="default: one per core on a CPU, one on a GPU")
    worker.add_argument("--device", choices=["cpu", "cuda"], help="default: ECGBATCH_DEVICE")
    worker.set_defaults(run=run_worker)

    flower = commands.add_parser(
        "flower",
        help="watch workers and chunks in the browser",
        description="Starts Flower on 127.0.0.1, behind a password: whoever reaches it can run tasks.",
    )
    flower.set_defaults(run=run_flower)

    reconcile = commands.add_parser(
        "reconcile",
        help="find lost work and publish it again",
        description="Gives back the chunks whose workers fell silent or whose messages are gone, and publishes them "
        "again. Every worker does that by itself now and then.",
    )
    reconcile.set_defaults(run=run_reconcile)

    doctor = commands.add_parser(
        "doctor",
        help="check everything that scoring needs",
        description="Checks database, Redis, model, kernel, reading, device and versions, and says what to do.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=run_doctor)


def run_worker(args: argparse.Namespace) -> int:
    if args.processes is not None and args.processes < 1:
        raise EcgbatchError("--processes must be at least 1")
    for name in ("processes", "device"):
        if getattr(args, name) is not None:
            os.environ[variable(name)] = str(getattr(args, name))  # the processes load their settings themselves
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process is one line of work; set before numpy comes
    from ecgbatch.db.migrate import open_database
    from ecgbatch.models.weights import registry
    from ecgbatch.worker import tasks
    from ecgbatch.worker.app import connected_app

    settings = load()
    open_database(settings.database_url)
    model = registry.find(settings.model)
    app = connected_app(settings)
    worker = app.Worker(
        concurrency=settings.processes or _suggested_processes(settings, model),
        hostname=f"ecgbatch-{os.getpid()}@{socket.gethostname()}",
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
    )
    worker.start()
    return int(tasks.unable.is_set() or worker.exitcode or 0)


def _suggested_processes(settings: Settings, model: "Model") -> int:
    """What `ecgbatch model bench` found best on this machine; else one per core, or one for a GPU."""
    from ecgbatch.models import bench
    from ecgbatch.models.scorer import choose_kernel

    kernel = choose_kernel(model.config, settings.device, settings.kernel)
    if suggested := bench.suggestion(model.fingerprint, settings.device, kernel):
        return suggested.processes
    return bench.cores() if settings.device == "cpu" else 1


def run_flower(args: argparse.Namespace) -> int:
    from ecgbatch.worker.app import connected_app

    settings = load()
    app = connected_app(settings)
    password = settings.flower_password or secrets.token_urlsafe(12)
    print(f"Flower: http://127.0.0.1:{settings.flower_port} user ecgbatch, password {password}", flush=True)
    app.start(
        [
            "flower",
            "--address=127.0.0.1",
            f"--port={settings.flower_port}",
            f"--basic-auth=ecgbatch:{password}",
            "--tasks-columns=args,state,result,received,started,runtime,worker,uuid",
            "--max-tasks=100000",
        ]
    )
    return 0


def run_reconcile(args: argparse.Namespace) -> int:
    from ecgbatch.db.migrate import open_database
    from ecgbatch.worker.app import connected_app
    from ecgbatch.worker.queue import reconcile

    settings = load()
    database = open_database(settings.database_url)
    lost = reconcile(database, connected_app(settings), settings.queue_chunks)
    print(f"{lost} lost chunks were given back")
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    from ecgbatch.worker.doctor import Finding, examine

    findings = examine(load())
    print_rows(
        Finding._fields, [(what, "yes" if well else "NO", finding) for what, well, finding in findings], args.json
    )
    return 0 if all(finding.well for finding in findings) else 1
