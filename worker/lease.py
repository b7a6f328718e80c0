"""A worker's lease on the chunk it scores."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from ecgbatch.db import chunks
from ecgbatch.db.chunks import Claim, LeaseLost
from ecgbatch.db.engine import Database

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews the lease on the chunk that this process scores, in one thread for all chunks to come."""

    def __init__(self, database: Database, length: timedelta) -> None:
        self.database = database
        self.length = length
        self._claim: Claim | None = None
        self._renewed = 0.0
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @contextmanager
    def keeping(self, claim: Claim) -> Iterator[None]:
        """Keeps the lease that came with a claim for as long as its chunk is worked on."""
        self._renewed = time.monotonic()
        self._claim = claim
        try:
            yield
        finally:
            self._claim = None

    def _keep(self) -> None:
        renew_every = self.length.total_seconds() / 3
        while True:
            time.sleep(min(1.0, renew_every))
            claim = self._claim
            if claim is not None and time.monotonic() - self._renewed > renew_every:
                self._renewed = time.monotonic()
                self._renew(claim)

    def _renew(self, claim: Claim) -> None:
        """Whatever goes wrong, the thread must live on for the chunks to come."""
        try:
            with suppress(LeaseLost):  # the chunk's end, or the next outcomes to be stored, will tell
                self.database.write(chunks.renew, claim, self.length)
        except Exception as error:
            log.warning("lease of job %d, chunk %d: %s", claim.job_id, claim.number, error)
