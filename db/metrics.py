"""What is measured for Prometheus: counts from SQL, asked at each scrape, never counted by a process.

Of jobs that ended more than a day ago nothing is asked.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.engine import Connection

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.functions import Now, SecondsBetween, SecondsFromNow
from ecgbatch.db.schema import archives, chunks, failures, job_items, jobs, models, predictions, workers
from ecgbatch.db.terms import ChunkState
from ecgbatch.records.recording import flag_of
from ecgbatch.settings import EcgbatchError

DAY_SECONDS = 86_400
CHUNKS_AT_ONCE = 1000
LABELS = ["job_id", "archive", "model"]  # not `job`, which is Prometheus's own name of what it scrapes


class _Job(NamedTuple):
    id: int
    model_id: int
    labels: list[str]


class JobsCollector(Collector):
    """Gauges of the jobs that are open or ended within a day, and of the workers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._flags = _Flags()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges, from one look at the database. Raises EcgbatchError when it is away: the scrape then fails."""
        with self.database.read() as connection:
            recent = _recent_jobs(connection)
            yield from _records(connection, recent)
            yield _failures(connection, recent)
            yield self._flags.gauge(connection, recent)
            yield from _chunks(connection, recent)
            yield _workers(connection)


def serve(database: Database, address: str, port: int) -> None:
    """Answers Prometheus at /metrics until the process is told to end. Raises EcgbatchError if the port is taken."""
    try:
        _, thread = start_http_server(port, address, _registry(database))
    except OSError as error:
        raise EcgbatchError(f"cannot listen on {address}:{port}: {error.strerror}; give another --port") from None
    thread.join()


def as_text(database: Database) -> str:
    """The metrics once, in Prometheus's format."""
    return generate_latest(_registry(database)).decode()


def _registry(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JobsCollector(database))
    return registry


def _recent_jobs(connection: Connection) -> list[_Job]:
    recent = jobs.c.finished_at.is_(None) | (jobs.c.finished_at > SecondsFromNow(-DAY_SECONDS))
    query = sa.select(jobs.c.id, jobs.c.model_id, archives.c.name, models.c.name.label("model"), models.c.version)
    query = query.join_from(jobs, archives).join(models, models.c.id == jobs.c.model_id).where(recent)
    return [
        _Job(row.id, row.model_id, [str(row.id), row.name, f"{row.model}:{row.version}"])
        for row in connection.execute(query.order_by(jobs.c.id))
    ]


def _records(connection: Connection, recent: list[_Job]) -> Iterator[GaugeMetricFamily]:
    records = GaugeMetricFamily("ecgbatch_records", "Records of a job by state.", labels=[*LABELS, "state"])
    rate = GaugeMetricFamily("ecgbatch_records_per_second", "Records a second that a job scores.", labels=LABELS)
    progress = {found.job_id: found for found in reports.progress(connection)}
    for job in recent:
        found = progress[job.id]
        states = {"scored": found.scored - found.reused, "reused": found.reused, "failed": found.failed}
        for state, count in (states | {"remaining": found.remaining}).items():
            records.add_metric([*job.labels, state], count)
        rate.add_metric(job.labels, found.records_per_second or 0)
    yield from (records, rate)


def _failures(connection: Connection, recent: list[_Job]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("ecgbatch_failures", "Failures of a job by reason.", labels=[*LABELS, "reason"])
    query = sa.select(failures.c.reason, sa.func.count()).group_by(failures.c.reason)
    for job in recent:
        for reason, count in connection.execute(query.where(failures.c.job_id == job.id)):
            gauge.add_metric([*job.labels, reason], count)
    return gauge


class _Flags:
    """How many records of each job have which flag.

    Of a chunk that is known it is asked again when its tallies are others: of a job of ten million records each scrape
    would else read all that is flagged.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[tuple[int, float], Counter[str]]] = {}

    def gauge(self, connection: Connection, recent: list[_Job]) -> GaugeMetricFamily:
        """The flags of these jobs; all others are forgotten."""
        gauge = GaugeMetricFamily("ecgbatch_flags", "Scored records of a job by flag.", labels=[*LABELS, "flag"])
        known = self._known
        self._known = {}
        for job in recent:
            tallies = sa.select(chunks.c.number, chunks.c.flagged, chunks.c.margin)
            tallies = tallies.where(chunks.c.job_id == job.id, chunks.c.flagged > 0)
            now = {number: (flagged, margin) for number, flagged, margin in connection.execute(tallies)}
            same = {number: known[job.id, number] for number in now if (job.id, number) in known}
            changed = [number for number, tally in now.items() if number not in same or same[number][0] != tally]
            counted = _flags_of_chunks(connection, job, changed)
            self._known |= {
                (job.id, number): (tally, counted[number] if number in counted else same[number][1])
                for number, tally in now.items()
            }
            total: Counter[str] = Counter()
            for number in now:
                total.update(self._known[job.id, number][1])
            for flag, count in total.items():
                gauge.add_metric([*job.labels, flag], count)
        return gauge


def _flags_of_chunks(connection: Connection, job: _Job, numbers: list[int]) -> dict[int, Counter[str]]:
    """How many records have which flag, chunk by chunk."""
    counts: dict[int, Counter[str]] = {number: Counter() for number in numbers}
    query = sa.select(job_items.c.chunk, predictions.c.flags, sa.func.count())
    query = query.join_from(job_items, predictions, job_items.c.recording_id == predictions.c.recording_id)
    query = query.where(predictions.c.model_id == job.model_id, predictions.c.flags != "", job_items.c.job_id == job.id)
    query = query.group_by(job_items.c.chunk, predictions.c.flags)
    for first in range(0, len(numbers), CHUNKS_AT_ONCE):
        these = job_items.c.chunk.in_(numbers[first : first + CHUNKS_AT_ONCE])
        for number, flags, count in connection.execute(query.where(these)):
            counts[number].update(dict.fromkeys(map(flag_of, flags.split(",")), count))
    return counts


def _chunks(connection: Connection, recent: list[_Job]) -> Iterator[GaugeMetricFamily]:
    """A chunk is overdue when its lease has run out; an overdue chunk counts as nothing else."""
    gauge = GaugeMetricFamily("ecgbatch_chunks", "Chunks of a job by state.", labels=[*LABELS, "state"])
    oldest = GaugeMetricFamily(
        "ecgbatch_oldest_chunk_seconds", "How long ago the oldest chunk that is not done was enqueued.", labels=LABELS
    )
    overdue = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.lease_until < Now())
    state = sa.case((overdue, "overdue"), else_=chunks.c.state).label("state")
    counted = sa.select(state, sa.func.count(), sa.func.max(SecondsBetween(jobs.c.created_at, Now())))
    counted = counted.join_from(chunks, jobs).group_by(state)
    for job in recent:
        found: dict[str, Any] = dict.fromkeys([*ChunkState, "overdue"], 0)
        age = 0.0
        for name, count, seconds in connection.execute(counted.where(chunks.c.job_id == job.id)):
            found[name] = count
            age = age if name == ChunkState.DONE else max(age, seconds)
        for name, count in found.items():
            gauge.add_metric([*job.labels, name], count)
        oldest.add_metric(job.labels, age)
    yield from (gauge, oldest)


def _workers(connection: Connection) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("ecgbatch_workers", "Workers whose heartbeat is not late.")
    alive = sa.select(sa.func.count()).where(workers.c.expected_by > Now())
    gauge.add_metric([], connection.execute(alive).scalar_one())
    return gauge
