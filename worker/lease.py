"""A worker's lease on the chunk it scores."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from db import chunks
from db.chunks import Claim, LeaseLost
from db.engine import Database
from settings import EcgbatchError

T = TypeVar("T")
log = logging.getLogger(__name__)


class Lease:
    """Renews a chunk's lease while its worker works, and ends the process when a batch hangs.

    A hanging read or computation cannot be interrupted from within, so the process kills itself after
    `batch_seconds` without a batch; the chunk then goes to another, which takes its records one by one.
    """

    def __init__(self, database: Database, claim: Claim, length: timedelta, batch_seconds: float) -> None:
        self.database = database
        self.claim = claim
        self.length = length
        self.batch_seconds = batch_seconds
        self._batch_began: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def watched(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, each of which must come within `batch_seconds`."""
        self._batch_began = time.monotonic()
        for batch in batches:
            self._batch_began = None
            yield batch
            self._batch_began = time.monotonic()
        self._batch_began = None

    def _keep(self) -> None:
        renew_every = self.length.total_seconds() / 3
        renewed = time.monotonic()
        while not self._over.wait(min(1.0, renew_every)):
            began = self._batch_began
            if began is not None and time.monotonic() - began > self.batch_seconds:
                log.error("a batch took over %g s; ending this process", self.batch_seconds)
                os.kill(os.getpid(), signal.SIGKILL)
            if time.monotonic() - renewed > renew_every:
                renewed = time.monotonic()
                try:
                    self.database.write(chunks.renew, self.claim, self.length)
                except LeaseLost:
                    return
                except EcgbatchError as error:
                    log.warning("lease of job %d, chunk %d: %s", self.claim.job_id, self.claim.number, error)
