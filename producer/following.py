"""Follows jobs to their end and shows how far they are: `run`, and `status --watch`."""

import time
from collections.abc import Callable, Sequence

from ecgbatch.db import reports
from ecgbatch.db.engine import OUTAGE_SECONDS, Database, DatabaseAway
from ecgbatch.db.reports import Progress
from ecgbatch.db.workers import presence
from ecgbatch.producer.display import hindrances
from ecgbatch.producer.progress import Line, Pace, ProgressLine, facts_of, share_of
from ecgbatch.settings import EcgbatchError

SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 0.25
"""Seconds between two looks: less when the end is near, so that it is seen at once."""
SECONDS_AT_FIRST = 0.4
"""How much time is left, it is taken, while nobody can tell."""
PRESENCE_SECONDS = 2.0


def follow(
    database: Database, job_id: int | None = None, check_workers: Callable[[], None] | None = None
) -> list[Progress]:
    """Shows the progress of a job, or of all that have not ended, until they have; returns the last of it.

    An outage of the database is waited for, as workers do. Raises EcgbatchError when there is no such job, and what
    `check_workers`, which is called now and then, does; without it what keeps workers from working is shown.
    """
    line, watched = ProgressLine(), Watched(job_id)
    seen_at = time.monotonic()
    try:
        while True:
            began = time.monotonic()
            pause = LONGEST_PAUSE
            try:
                jobs = watched.look(database)
                ended = all(job.ended for job in jobs)
                hindered = [] if ended or check_workers is not None else watched.hindrances(database)
            except DatabaseAway as error:
                if time.monotonic() - seen_at > OUTAGE_SECONDS:
                    raise
                line.show("waiting for the database", [str(error)])
            else:
                seen_at = time.monotonic()
                lines = [watched.line(job, seen_at) for job in jobs]
                line.show_all([*lines, *(Line("workers", [hindrance]) for hindrance in hindered)])
                if ended:
                    return jobs
                pause = _pause(jobs, time.monotonic() - began)
            if check_workers is not None:
                check_workers()
            time.sleep(pause)
    finally:
        line.close()


def _pause(jobs: Sequence[Progress], took: float) -> float:
    """Seconds until the next look; if one takes long, the next is not soon."""
    left = max(job.remaining / job.records_per_second if job.records_per_second else SECONDS_AT_FIRST for job in jobs)
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 10 * took, left / 4))


class Watched:
    """The jobs that are followed: one, or all that have not ended yet when they are first seen."""

    def __init__(self, job_id: int | None) -> None:
        self._job_id = job_id
        self._paces: dict[int, Pace] = {}
        self._asked_at = -PRESENCE_SECONDS
        self._hindrances: list[str] = []

    def look(self, database: Database) -> list[Progress]:
        """How far they are; the newest job if all have ended. Raises EcgbatchError when there is none."""
        with database.read() as connection:
            known = reports.progress(connection, self._job_id)
        if not known:
            raise EcgbatchError("there are no jobs yet; `ecgbatch enqueue ARCHIVE` makes one")
        followed = [job for job in known if job.job_id in self._paces or not job.ended] or known[-1:]
        self._paces |= {job.job_id: Pace() for job in followed if job.job_id not in self._paces}
        return followed

    def hindrances(self, database: Database) -> list[str]:
        """What keeps workers from working, looked up now and then."""
        if time.monotonic() - self._asked_at > PRESENCE_SECONDS:
            with database.read() as connection:
                self._hindrances = hindrances(presence(connection))
            self._asked_at = time.monotonic()
        return self._hindrances

    def line(self, job: Progress, now: float) -> Line:
        """What is shown of one of them."""
        pace = self._paces[job.job_id].update(job.total - job.remaining, now)
        return Line(f"job {job.job_id}", facts_of(job, pace), share_of(job))
