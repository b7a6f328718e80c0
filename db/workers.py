"""The workers of a database: who is there, since when, and what keeps one from working."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.functions import Now, SecondsFromNow
from ecgbatch.db.schema import workers


@dataclass(frozen=True)
class Worker:
    """What a worker says of itself."""

    name: str
    processes: int
    device: str
    kernel: str
    model: str


@dataclass(frozen=True)
class Presence:
    """How many workers are there, which was there last and when, and what keeps workers from working."""

    present: int
    last: str | None
    last_seen: datetime | None
    problems: tuple[str, ...]


def arrive(connection: Connection, worker: Worker, seconds: float) -> None:
    """Says that a worker has started; unless it is heard of again it counts as gone after so many seconds."""
    connection.execute(workers.delete().where(workers.c.name == worker.name))
    times = dict(started_at=Now(), seen_at=Now(), expected_by=SecondsFromNow(seconds))
    connection.execute(workers.insert().values(**vars(worker), **times))


def stay(connection: Connection, name: str, seconds: float) -> None:
    """Says that a worker is still there."""
    stay = workers.update().where(workers.c.name == name)
    connection.execute(stay.values(seen_at=Now(), expected_by=SecondsFromNow(seconds)))


def leave(connection: Connection, name: str) -> None:
    """Says that a worker has ended."""
    leave = workers.update().where(workers.c.name == name)
    connection.execute(leave.values(seen_at=Now(), expected_by=None, problem=None))


def report_problem(connection: Connection, name: str, problem: str | None) -> None:
    """Says what keeps a worker from working; None when nothing does any more."""
    connection.execute(workers.update().where(workers.c.name == name).values(problem=problem))


def presence(connection: Connection) -> Presence:
    """Who is there."""
    present = workers.c.expected_by > Now()
    counted = connection.execute(sa.select(sa.func.count()).where(present)).scalar_one()
    newest = sa.select(workers.c.name, workers.c.seen_at).order_by(workers.c.seen_at.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    problems = sa.select(workers.c.name, workers.c.problem).where(present, workers.c.problem.is_not(None))
    said = tuple(f"{name}: {problem}" for name, problem in connection.execute(problems.order_by(workers.c.name)))
    name, seen_at = (last.name, last.seen_at) if last else (None, None)
    return Presence(counted, name, seen_at, said)
