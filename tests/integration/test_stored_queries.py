"""The stored queries, on both databases: by job, and the same as a look at every row would give."""

from typing import Any

import pytest
import sqlalchemy as sa
from scoring import LEASE, THRESHOLDS, claim, make_job, take

from ecgbatch.db import chunks, jobs, tallies
from ecgbatch.db.cli import stored_queries
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import LABEL_COLUMNS, Failure, Prediction
from ecgbatch.db.schema import chunks as table
from ecgbatch.db.schema import predictions
from ecgbatch.db.select import select
from ecgbatch.db.terms import JobOptions, Rescore
from ecgbatch.records.recording import Record

RECORDS = 30
FAILING = {"r3": "truncated", "r4": "no_signal", "r9": "truncated", "r20": "no_signal"}


def probability(record: int, label: int) -> float:
    return (7 * record + 31 * label) % 100 / 100


def outcome(record: Record) -> Prediction | Failure:
    assert record.id is not None
    number = int(record.path[1:])
    if record.path in FAILING:
        return Failure(record.id, "read", FAILING[record.path], f"about {record.path}", 1)
    norm, mi, sttc, cd, hyp = (probability(number, label) for label in range(5))
    return Prediction(record.id, (norm, mi, sttc, cd, hyp), "00", "clipped" if number % 7 == 0 else "")


@pytest.fixture
def scored(database: Database) -> Database:
    """Job 1 is finished, by two workers; so is job 2, of another archive."""
    for archive, records in (("/archive", RECORDS), ("/other", 6)):
        make_job(database, records, archive=archive)
        for number, chunk in enumerate(take(database)):
            mine = claim(database, chunk, worker=f"host:{number % 2}")
            assert mine is not None
            for part in filter(None, (mine.records[:2], mine.records[2:])):
                database.write(chunks.store, mine, [outcome(record) for record in part], LEASE)
    return database


def ask(database: Database, name: str, job: int | None = None) -> list[dict[str, Any]]:
    with select(database, stored_queries()[name], {"job": None if job is None else str(job)}) as (columns, rows):
        return [dict(zip(columns, row, strict=True)) for row in rows]


def test_an_example_of_a_failure_has_its_own_detail(scored: Database) -> None:
    found = [(row["job_id"], row["reason"], row["records"], row["for_example"]) for row in ask(scored, "failures")]
    assert found == [
        *((1, "no_signal", 2, "r4"), (1, "truncated", 2, "r3")),
        *((2, "no_signal", 1, "r4"), (2, "truncated", 1, "r3")),
    ]
    assert all(row["detail"] == f"about {row['for_example']}" for row in ask(scored, "failures"))


def test_every_query_is_by_job(scored: Database) -> None:
    for name in stored_queries().keys() - {"classes"}:  # which is of models that tell others
        everything = ask(scored, name)
        assert {row["job_id"] for row in everything} == {1, 2}, name
        of_second = [row for row in everything if row["job_id"] == 2]
        assert sorted(ask(scored, name, 2), key=str) == sorted(of_second, key=str), name
        assert ask(scored, name, 7) == []


def test_superclasses_flags_and_margins_are_those_of_the_rows(scored: Database) -> None:
    records = [number for number in range(RECORDS) if f"r{number}" not in FAILING]
    [counts] = ask(scored, "superclasses", 1)
    assert counts["records"] == len(records)
    for label, name in enumerate(LABEL_COLUMNS):
        assert counts[name] == sum(probability(number, label) >= THRESHOLDS[name] for number in records)
    assert {row["path"] for row in ask(scored, "flags", 1)} == {"r0", "r7", "r14", "r21", "r28"}
    assert len(ask(scored, "flags", 1)) == 5
    nearest = ask(scored, "uncertain", 1)
    distances = [min(abs(row[name] - THRESHOLDS[name]) for name in LABEL_COLUMNS) for row in nearest]
    assert [row["distance"] for row in nearest] == pytest.approx(distances)
    assert distances == sorted(distances)
    assert len(nearest) == len(records)
    assert sum(row["records"] for row in ask(scored, "workers", 1)) == len(records)
    assert {row["worker"] for row in ask(scored, "workers", 1)} == {"host:0", "host:1"}


def tallied(connection: sa.Connection) -> list[tuple[Any, ...]]:
    columns = (table.c.job_id, table.c.number, *(table.c[n] for n in LABEL_COLUMNS), table.c.flagged, table.c.margin)
    return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(table.c.job_id, table.c.number))]


def test_tallies_that_grow_are_those_that_are_counted_anew(scored: Database) -> None:
    def count_anew(connection: sa.Connection) -> None:
        for job, number, *_ in tallied(connection):
            tallies.count_anew(connection, job, [number])

    with scored.read() as connection:
        grown = tallied(connection)
    scored.write(count_anew)
    with scored.read() as connection:
        for before, after in zip(grown, tallied(connection), strict=True):
            assert after == pytest.approx(before)


def test_what_is_scored_again_is_tallied_in_the_older_job_too(database: Database) -> None:
    """The second job's predictions take the place of the first's, which both count from then on."""
    make_job(database, 4)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    records = mine.records
    database.write(chunks.store, mine, [outcome(record) for record in records[:3]], LEASE)

    def again(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE jobs SET state = 'finished'"))
        job, _ = jobs.open_job(connection, 1, 1, JobOptions(rescore=Rescore.ALL))
        jobs.add_records(connection, job, records, 4, {record.path for record in records})
        jobs.all_enqueued(connection, job)

    database.write(again)
    with database.read() as connection:
        assert [row[2:] for row in tallied(connection)][1] == (0, 0, 0, 0, 0, 0, 1.0), "nothing is scored again yet"
    new = [Prediction(record.id, (0.95, 0, 0, 0, 0), "00", "") for record in mine.records if record.id is not None]
    [chunk] = [queued for queued in take(database) if queued.job_id == 2]
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, new, LEASE)
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar_one() == 4
        for job in tallied(connection):
            assert job[2:] == pytest.approx((4, 0, 0, 0, 0, 0, 0.05))
