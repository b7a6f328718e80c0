"""A worker's lease on the chunk it scores."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

from ecgbatch.db import chunks
from ecgbatch.db.chunks import Claim, LeaseLost
from ecgbatch.db.engine import Database

T = TypeVar("T")
log = logging.getLogger(__name__)


class Lease:
    """Renews the lease on the chunk that this process scores, and ends the process when a batch hangs.

    A hanging read or computation cannot be interrupted from within, so the process kills itself after
    `batch_seconds` without a batch; the chunk then goes to another, which takes its records one by one.
    One thread serves all chunks: to start and end one takes longer than to claim a chunk.
    """

    def __init__(self, database: Database, length: timedelta, batch_seconds: float) -> None:
        self.database = database
        self.length = length
        self.batch_seconds = batch_seconds
        self._claim: Claim | None = None
        self._renewed = 0.0
        self._batch_began: float | None = None
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @contextmanager
    def on(self, claim: Claim) -> Iterator[None]:
        """Keeps the lease that came with a claim for as long as its chunk is worked on."""
        self._renewed = time.monotonic()
        self._claim = claim
        try:
            yield
        finally:
            self._claim = self._batch_began = None

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
        while True:
            time.sleep(min(1.0, renew_every))
            began = self._batch_began
            if began is not None and time.monotonic() - began > self.batch_seconds:
                log.error("a batch took over %g s; ending this process", self.batch_seconds)
                os.kill(os.getpid(), signal.SIGKILL)
            claim = self._claim
            if claim is not None and time.monotonic() - self._renewed > renew_every:
                self._renewed = time.monotonic()
                self._renew(claim)

    def _renew(self, claim: Claim) -> None:
        """Whatever goes wrong, the thread must live on for the chunks to come."""
        try:
            with suppress(LeaseLost):  # the chunk's end, or the next batch to be stored, knows
                self.database.write(chunks.renew, claim, self.length)
        except Exception as error:
            log.warning("lease of job %d, chunk %d: %s", claim.job_id, claim.number, error)
