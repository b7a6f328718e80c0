"""How a worker's processes come into being."""

import threading
from typing import Any

from billiard import get_context
from celery.concurrency import prefork
from celery.concurrency.asynpool import AsynPool


class _Pool(AsynPool):
    """Forks the first processes, which then need not import what is imported, and spawns those that take their place.

    As long as a process has one thread, a fork of it gets no lock that nobody would give back.
    """

    def Process(self, *args: Any, **options: Any) -> Any:  # noqa: N802
        method = "fork" if threading.active_count() == 1 else "spawn"
        return get_context(method).Process(*args, **options)


class ForkedAtFirst(prefork.TaskPool):
    """Celery's pool of processes, whose first ones are there at once."""

    Pool = _Pool
