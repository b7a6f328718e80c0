"""Celery's consumer of messages, which says in a line what keeps it from Redis, and does not hurry."""

import logging
import time
import warnings

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer as CeleryConsumer

from ecgbatch.printing import first_line

log = logging.getLogger(__name__)

AGAIN_AFTER_SECONDS = 1.0


class Consumer(CeleryConsumer):
    """Celery's own, for servers that answer and refuse: full, read-only after a failover, without a right."""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """While it begins."""
        _say_and_wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Later on, before the connection is made anew."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)  # of a setting that is set
            super().on_connection_error_after_connected(exc)
        _say_and_wait(exc)


def _say_and_wait(error: Exception) -> None:
    log.warning("Redis: %s; connecting again", first_line(error))
    time.sleep(AGAIN_AFTER_SECONDS)
