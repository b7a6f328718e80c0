"""Ends a worker process whose work hangs."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Watchdog:
    """Ends this process when what it watches takes longer than `seconds`.

    A hanging read or computation cannot be interrupted from within. The chunk then goes to another process, which takes
    its records one by one. One thread serves all chunks: to start and end one takes longer than to claim a chunk.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches what is done within."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self.seconds / 4))
            began = self._began
            if began is not None and time.monotonic() - began > self.seconds:
                log.error("a batch took over %g s; ending this process", self.seconds)
                os.kill(os.getpid(), signal.SIGKILL)
