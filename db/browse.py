"""Pages of a job's records, filtered and in an order, from any place on in either direction.

A page is found by its neighbour's place in the order (keyset), never by counting: the last of ten million records
comes as fast as the first. What no index serves, a rare flag or the highest of a probability, is looked for in all of
the job's rows; who asks says how long that may take (`within`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from ecgbatch.db.classes import probabilities_of
from ecgbatch.db.engine import Database
from ecgbatch.db.schema import failures, job_items, jobs, predictions, recordings
from ecgbatch.settings import EcgbatchError

T = TypeVar("T")
Keys: TypeAlias = Sequence[Sequence[sa.ColumnElement[Any]]]
STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""
QUERY_CANCELED = "57014"


class TooSlow(EcgbatchError):
    """It would take longer than it may."""


class NotThere(EcgbatchError):
    """There is no such job or record."""


@dataclass(frozen=True)
class Wanted:
    """Which scored records, and in which order.

    superclass: a class of the model, those whose probability of it is within `least` and `most`.
    flag: those that have it. text: those with this in their path, in small letters or capitals.
    sort: id is the order in which they were enqueued; path, or a class of the model; `descending` turns it round.
    """

    superclass: str | None = None
    least: float = 0.0
    most: float = 1.0
    flag: str | None = None
    text: str | None = None
    sort: str = "id"
    descending: bool = False


@dataclass(frozen=True)
class Place:
    """Where a page is: after or before the record of an id, at the beginning without either."""

    after: int | None = None
    before: int | None = None


@dataclass(frozen=True)
class Page(Generic[T]):
    """Rows in their order, and whether there are more on either side."""

    rows: list[T]
    more_before: bool
    more_after: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A scored record: age in years, sex 0 male and 1 female, None if not known; probabilities by class."""

    id: int
    path: str
    age: float | None
    sex: int | None
    flags: tuple[str, ...]
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that has failed, and why."""

    id: int
    path: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Job:
    """What a job is of, by ids."""

    id: int
    archive_id: int
    model_id: int


@contextmanager
def within(database: Database, seconds: float) -> Iterator[Connection]:
    """A connection to read with, on which nothing takes longer than this. Raises TooSlow."""
    with database.read() as connection:
        try:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")
                yield connection
                return
            give_up = time.monotonic() + seconds
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: time.monotonic() > give_up, STEPS)
            try:
                yield connection
            finally:
                driver.set_progress_handler(None, 0)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == QUERY_CANCELED or "interrupted" in str(error.orig):
                raise TooSlow(f"this takes longer than {seconds:g} seconds; ask for less") from None
            raise


def job_of(connection: Connection, job_id: int) -> Job:
    """Raises NotThere when there is no such job."""
    query = sa.select(jobs.c.id, jobs.c.archive_id, jobs.c.model_id).where(jobs.c.id == job_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotThere(f"there is no job {job_id}")
    return Job(*row)


def page(connection: Connection, job: Job, wanted: Wanted, place: Place, count: int) -> Page[Found]:
    """`count` of the records that a job's model has scored."""
    predicted = (predictions.c.recording_id == job_items.c.recording_id) & (predictions.c.model_id == job.model_id)
    source = job_items.join(predictions, predicted).join(recordings, recordings.c.id == job_items.c.recording_id)
    about = (recordings.c.id, recordings.c.path, recordings.c.age, recordings.c.sex, predictions.c.flags)
    probabilities = probabilities_of(connection, job.model_id)
    query = sa.select(*about, *probabilities.values()).select_from(source)
    query = query.where(job_items.c.job_id == job.id, recordings.c.archive_id == job.archive_id)
    if wanted.sort == "id":
        keys: Keys = [[column] for column in (job_items.c.recording_id, predictions.c.recording_id, recordings.c.id)]
    elif wanted.sort == "path":
        keys = [[recordings.c.path]]  # which no other record of the archive has
    else:
        keys = [[probabilities[wanted.sort], predictions.c.recording_id]]
    order = _Order(keys, job_items.c.recording_id, wanted.descending)
    conditions = list(_conditions(wanted, probabilities))
    return _page(connection, query, conditions, order, place, count, partial(_found, tuple(probabilities)))


def failed_page(
    connection: Connection, job: Job, reason: str | None, text: str | None, place: Place, count: int
) -> Page[Failed]:
    """`count` of the records of a job that have failed, for one reason or any, as they were enqueued."""
    query = sa.select(recordings.c.id, recordings.c.path, failures.c.stage, failures.c.reason, failures.c.detail)
    query = query.select_from(failures.join(recordings)).where(failures.c.job_id == job.id)
    conditions = [] if reason is None else [failures.c.reason == reason]
    if text is not None:
        conditions.append(recordings.c.path.icontains(text, autoescape=True))
    order = _Order([[failures.c.recording_id]], failures.c.recording_id, descending=False)
    return _page(connection, query, conditions, order, place, count, lambda row: Failed(*row))


def _conditions(
    wanted: Wanted, probabilities: Mapping[str, sa.ColumnElement[float]]
) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.superclass is not None:
        yield probabilities[wanted.superclass].between(wanted.least, wanted.most)
    if wanted.flag is not None:
        flags = sa.literal(",") + predictions.c.flags + ","
        yield sa.or_(*(flags.contains(f",{wanted.flag}{end}", autoescape=True) for end in (",", ":")))
    if wanted.text is not None:
        yield recordings.c.path.icontains(wanted.text, autoescape=True)


@dataclass(frozen=True)
class _Order:
    """By the columns of the first of `keys`; `id` is the record's.

    All keys are equal in each row. A neighbour bounds every one of them, since PostgreSQL would otherwise begin in one
    table at the neighbour and in the others at their first row.
    """

    keys: Keys
    id: sa.Column[Any]
    descending: bool


def _page(
    connection: Connection,
    query: sa.Select[Any],
    conditions: Sequence[sa.ColumnElement[bool]],
    order: _Order,
    place: Place,
    count: int,
    made: Callable[[Sequence[Any]], T],
) -> Page[T]:
    """Looks `count` rows and one more on from the neighbour; backwards they come in the order turned round."""
    backwards = place.before is not None
    neighbour = place.before if backwards else place.after
    falls = order.descending != backwards
    shown = query.where(*conditions)
    if neighbour is not None:
        at = connection.execute(query.with_only_columns(*order.keys[0]).where(order.id == neighbour)).one_or_none()
        if at is None:
            raise NotThere(f"the job has no record {neighbour} any more; begin at its first page")
        for key in order.keys:
            here, there = (sa.tuple_(*key), sa.tuple_(*at)) if len(key) > 1 else (key[0], at[0])
            shown = shown.where(here < there if falls else here > there)
    shown = shown.order_by(*(column.desc() if falls else column.asc() for column in order.keys[0])).limit(count + 1)
    rows = [made(row) for row in connection.execute(shown)]
    more = len(rows) > count
    rows = rows[:count][::-1] if backwards else rows[:count]
    return Page(rows, more if backwards else neighbour is not None, more or backwards)


def _found(labels: Sequence[str], row: Sequence[Any]) -> Found:
    id_, path, age, sex, flags, *probabilities = row
    by_label = dict(zip(labels, probabilities, strict=True))
    return Found(id_, path, age, sex, tuple(filter(None, flags.split(","))), by_label)
