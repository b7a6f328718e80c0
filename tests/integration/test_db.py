"""Jobs and chunks, on SQLite and on PostgreSQL."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import progress, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scoring import LEASE, claim, make_job, outcomes, prediction, score, take

from ecgbatch.db import bulk, chunks, dispatch, jobs, reports
from ecgbatch.db.chunks import Claim, LeaseLost
from ecgbatch.db.dispatch import QueuedChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade
from ecgbatch.db.overview import doubt_about, typical_amplitude
from ecgbatch.db.schema import predictions
from ecgbatch.db.select import select
from ecgbatch.db.terms import Priority
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

EXPIRED = timedelta(seconds=-1)


def test_a_prediction_belongs_to_an_item_of_its_job(database: Database) -> None:
    make_job(database, 2)
    make_job(database, 2, archive="/other")
    of_another_job = [prediction(Record("r0", id=3)).row(tells_superclasses=True)]
    with pytest.raises(sa.exc.IntegrityError):
        database.write(
            lambda c: bulk.insert_new(c, predictions, of_another_job, "scored_at", job_id=1, model_id=1, worker="w")
        )


def test_a_job_goes_from_enqueued_to_finished(database: Database) -> None:
    job_id = make_job(database, 10)
    assert progress(database, job_id).remaining == 10
    taken = take(database)
    assert [chunk.records for chunk in taken] == [4, 4, 2]
    assert [chunk.of for chunk in taken] == [3, 3, 3]
    for chunk in taken[:2]:
        score(database, chunk, failing=frozenset({"r1"}))
    assert (progress(database, job_id).scored, progress(database, job_id).failed) == (7, 1)
    assert progress(database, job_id).state == "running"
    score(database, taken[2])
    ended = progress(database, job_id)
    assert (ended.state, ended.scored, ended.failed, ended.remaining) == ("finished", 9, 1, 0)
    assert rows(database, "SELECT count(*) FROM results") == [(9,)]


def test_superclasses_are_found_by_the_thresholds_of_the_model(database: Database) -> None:
    job_id = make_job(database, 3)
    score(database, take(database)[0], failing=frozenset({"r1"}))
    found = rows(database, "SELECT path, has_norm, has_mi, has_sttc, has_cd, has_hyp FROM results ORDER BY path")
    assert found == [("r0", 1, 1, 0, 1, 0), ("r2", 1, 1, 0, 1, 0)]
    with database.read() as connection:
        assert reports.found(connection, job_id) == {"norm": 2, "mi": 2, "sttc": 0, "cd": 2, "hyp": 0}


def test_a_chunk_is_taken_once(database: Database) -> None:
    make_job(database, 10)
    assert len(take(database)) == 3
    assert take(database) == []


def test_what_is_scored_is_not_scored_again(database: Database) -> None:
    first = make_job(database, 6)
    for chunk in take(database):
        score(database, chunk)
    second = make_job(database, 8)
    assert second != first
    assert (progress(database, second).reused, progress(database, second).remaining) == (6, 2)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    assert [record.path for record in mine.records] == ["r6", "r7"], "those that were scored before are left out"
    database.write(chunks.store, mine, outcomes(mine.records), LEASE)
    assert progress(database, second).state == "finished"
    third = progress(database, make_job(database, 8))
    assert (third.state, third.reused) == ("finished", 8)
    assert progress(database, make_job(database, 8, model="b")).remaining == 8


def test_an_unfinished_job_is_continued(database: Database) -> None:
    job_id = make_job(database, 6)
    assert make_job(database, 9) == job_id
    assert progress(database, job_id).total == 9
    assert sum(chunk.records for chunk in take(database)) == 9


def test_duplicate_paths_are_one_record(database: Database) -> None:
    job_id = make_job(database, 3)
    database.write(jobs.add_records, job_id, [Record("r1"), Record("new"), Record("new")], 4)
    assert progress(database, job_id).total == 4


def test_enqueueing_looks_paths_up_in_the_index(database: Database) -> None:
    """Whatever else the planner likes costs more with each record that is there already."""
    make_job(database, 10_000)
    statements = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2:4]))
    paths = [Record(f"r{n}") for n in range(9_000, 11_000)]
    assert database.write(jobs.add_records, 1, paths, 4) == 1000
    lookup, parameters = next((s, p) for s, p in statements if s.startswith("SELECT recordings.path"))
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"{explain} {lookup}", parameters).all()
    plan = "\n".join(str(row[-1]) for row in rows)
    assert ("archive_id=? AND path=?" if database.is_sqlite else "path = ANY") in plan
    assert "Seq Scan on recordings" not in plan


def test_only_one_worker_gets_a_chunk(database: Database) -> None:
    make_job(database, 4)
    [chunk] = take(database)
    assert claim(database, chunk, "a") is not None
    assert claim(database, chunk, "b") is None


def test_an_expired_lease_is_another_attempt_and_the_first_worker_writes_no_more(database: Database) -> None:
    make_job(database, 4)
    [chunk] = take(database)
    first = claim(database, chunk, "a", EXPIRED)
    assert first is not None
    database.write(chunks.store, first, outcomes(first.records[:1]), EXPIRED)
    assert database.write(dispatch.find_lost, {Priority.NORMAL: 0}, LEASE) == 1
    [again] = take(database)
    second = claim(database, again, "b")
    assert second is not None
    assert second.attempt == 2
    assert second.records == first.records[1:]
    with pytest.raises(LeaseLost):
        database.write(chunks.store, first, outcomes(first.records[1:2]), LEASE)
    assert rows(database, "SELECT count(*) FROM predictions") == [(1,)]


def test_messages_that_are_gone_are_found(database: Database) -> None:
    make_job(database, 12)
    take(database)
    waiting = {Priority.NORMAL: 1}
    assert database.write(dispatch.find_lost, waiting, LEASE) == 0, "they may still be in transit"
    earlier = sa.text("UPDATE chunks SET queued_at = :at WHERE number < 3")
    at = time.time() - 60
    database.write(lambda c: c.execute(earlier, {"at": _timestamp(database, at)}))
    assert database.write(dispatch.find_lost, waiting, LEASE) == 2
    assert [chunk.number for chunk in take(database)] == [1, 2]


def _timestamp(database: Database, seconds: float) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(seconds))
    return moment if database.is_sqlite else f"{moment}+00"


def test_jobs_share_the_queue_fairly(database: Database) -> None:
    big = make_job(database, 400, archive="/big")
    assert len(take(database, room=10)) == 10
    small = make_job(database, 40, archive="/small")
    taken = [chunk.job_id for chunk in take(database, room=20)]
    assert taken.count(small) == 10
    assert taken.count(big) == 10
    assert set(taken[:10]) == {small}, "the job with less under way goes first"


def test_cancel_keeps_what_is_scored_and_retry_goes_on(database: Database) -> None:
    job_id = make_job(database, 12)
    first, second, _ = take(database)
    score(database, first)
    mine = claim(database, second, "a")
    assert mine is not None
    database.write(jobs.cancel, job_id)
    with pytest.raises(LeaseLost):
        database.write(chunks.store, mine, [], LEASE)
    database.write(chunks.give_up, job_id, second.number, "task")
    assert take(database) == []
    assert (progress(database, job_id).state, progress(database, job_id).scored) == ("cancelled", 4)
    with pytest.raises(EcgbatchError, match="not running"):
        database.write(jobs.cancel, job_id)
    database.write(jobs.retry, job_id, None)
    for chunk in take(database):
        score(database, chunk)
    assert (progress(database, job_id).state, progress(database, job_id).scored) == ("finished", 12)


def test_retry_by_reason_removes_the_failures_that_succeed(database: Database) -> None:
    job_id = make_job(database, 8)
    for chunk in take(database):
        score(database, chunk, failing=frozenset({"r1", "r5"}))
    assert progress(database, job_id).failed == 2
    assert database.write(jobs.retry, job_id, "missing_lead") == 0
    assert progress(database, job_id).state == "finished"
    assert database.write(jobs.retry, job_id, "truncated") == 2
    for chunk in take(database):
        score(database, chunk, failing=frozenset({"r5"}))
    ended = progress(database, job_id)
    assert (ended.state, ended.scored, ended.failed) == ("finished", 7, 1)
    assert rows(database, "SELECT count(*) FROM failures") == [(1,)]


def test_retry_with_nothing_to_retry_changes_nothing(database: Database) -> None:
    job_id = make_job(database, 4)
    score(database, take(database)[0], failing=frozenset({"r1"}))
    before = rows(database, "SELECT * FROM jobs"), progress(database, job_id)
    assert database.write(jobs.retry, job_id, "missing_lead") == 0
    assert (rows(database, "SELECT * FROM jobs"), progress(database, job_id)) == before


def test_a_rate_counts_the_seconds_in_which_something_was_scored(database: Database) -> None:
    """A job goes on the next day: the night does not count."""
    job_id = make_job(database, 8)
    first, second = take(database)
    score(database, first)
    long_ago = f"2026-01-01 00:00:00.000000{'' if database.is_sqlite else '+00'}"
    set_back = sa.text("UPDATE jobs SET started_at = :at, active_at = :at, worked_seconds = 2")
    database.write(lambda c: c.execute(set_back, {"at": long_ago}))
    score(database, second)
    rate = progress(database, job_id).records_per_second
    assert rate is not None
    assert 8 / 12 < rate <= 4


def test_a_job_with_amplitudes_that_no_archive_has_is_in_doubt(database: Database) -> None:
    job_id = make_job(database, 3, chunk_size=3)
    mine = claim(database, take(database)[0])
    assert mine is not None
    measured = [
        replace(prediction(record), amplitude=mv) for record, mv in zip(mine.records, (1.0, 5.7, 9.0), strict=True)
    ]
    database.write(chunks.store, mine, measured, LEASE)
    with database.read() as connection:
        amplitude = typical_amplitude(connection, job_id)
    assert amplitude == 5.7
    assert "6 times too large" in (doubt_about(amplitude) or "")
    assert "2500 times too small" in (doubt_about(0.0004) or "")
    assert doubt_about(1.03) is None
    assert doubt_about(None) is None


def test_the_amplitude_of_a_large_job_is_that_of_chunks_evenly_spread(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job(database, 6, chunk_size=1)
    for message in take(database):
        mine = claim(database, message)
        assert mine is not None
        [record] = mine.records
        database.write(chunks.store, mine, [replace(prediction(record), amplitude=float(mine.number))], LEASE)
    with database.read() as connection:
        assert typical_amplitude(connection, job_id) == 4.0
        monkeypatch.setattr("ecgbatch.db.overview.AMPLITUDE_CHUNKS", 1)
        assert typical_amplitude(connection, job_id) == 6.0


def test_a_later_jobs_success_supersedes_an_earlier_failure(database: Database) -> None:
    first = make_job(database, 4)
    score(database, take(database)[0], failing=frozenset({"r2"}))
    second = make_job(database, 4)
    score(database, take(database)[0])
    assert (progress(database, second).scored, progress(database, second).failed) == (4, 0)
    assert (progress(database, first).scored, progress(database, first).failed) == (4, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs",
        "INSERT INTO archives (name, root) VALUES ('a', 'b')",
        "DROP TABLE failures",
        "CREATE TABLE t (a INTEGER)",
        "SELECT 1; DELETE FROM jobs",
    ],
)
def test_query_cannot_write(database: Database, statement: str) -> None:
    make_job(database, 3)
    with pytest.raises(EcgbatchError), select(database, statement) as (_, found):
        list(found)
    assert rows(database, "SELECT count(*) FROM jobs") == [(1,)]
    make_job(database, 3, archive="/still/writable")


def test_query_takes_colons_and_percent_signs(database: Database) -> None:
    assert rows(database, "SELECT ':a' || '%s' || '\\:' AS text") == [(":a%s\\:",)]


def test_many_writers_at_once(database_url: str) -> None:
    """Eight threads with connections of their own score one job; every record ends once."""
    database = Database(database_url)
    upgrade(database)
    job_id = make_job(database, 200, chunk_size=5)
    waiting = take(database)

    def work(name: str) -> None:
        own = Database(database_url)
        for chunk in waiting:
            mine = claim(own, chunk, name)
            if mine is not None:
                own.write(chunks.store, mine, outcomes(mine.records), LEASE)
        own.engine.dispose()

    threads = [threading.Thread(target=work, args=[f"w{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = progress(database, job_id)
    assert (ended.state, ended.scored) == ("finished", 200)
    assert rows(database, "SELECT count(*), count(DISTINCT recording_id) FROM predictions") == [(200, 200)]


def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db", patience=30)
    upgrade(database)
    locked = subprocess.Popen(
        ["python3", "-c", f"import sqlite3,time; c=sqlite3.connect('{tmp_path}/test.db'); c.isolation_level=None;"
         "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(2);"
         "print(time.monotonic(), flush=True); c.execute('ROLLBACK')"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with locked:
        assert locked.stdout is not None
        assert locked.stdout.readline() == b"locked\n"
        make_job(database, 3)
        assert time.monotonic() > float(locked.stdout.readline())


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["take", "claim", "store", "die", "expire", "lose"]), st.integers(0, 5)), max_size=40
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, failing=st.frozensets(st.integers(0, 19).map(lambda n: f"r{n}")))
def test_whatever_happens_each_record_ends_once(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]], failing: frozenset[str]
) -> None:
    """Messages get lost and doubled, workers die; the job still ends with one end per record, and counts agree."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('random')}/test.db")
    upgrade(database)
    job_id = make_job(database, 20)
    messages: list[QueuedChunk] = []
    claims: list[Claim] = []

    def end(claimed: Claim, records: int | None = None) -> None:
        with contextlib.suppress(LeaseLost):
            database.write(chunks.store, claimed, outcomes(claimed.records[:records], failing), LEASE)

    def claim_one(n: int, lease: timedelta) -> None:
        message = messages[n % len(messages)]  # it stays: messages may come twice
        if (mine := claim(database, message, f"w{len(claims)}", lease)) is not None:
            claims.append(mine)

    for action, n in actions:
        if action == "take":
            messages += take(database, room=n)
        elif action == "claim" and messages:
            claim_one(n, LEASE if n % 2 else EXPIRED)
        elif action == "store" and claims:
            end(claims[n % len(claims)], n + 1)
        elif action == "die" and claims:
            claims.pop(n % len(claims))
        elif action == "expire":
            database.write(lambda c: c.execute(sa.text("UPDATE chunks SET lease_until = '2000-01-01 00:00:00.000000'")))
            database.write(dispatch.find_lost, {Priority.NORMAL: len(messages)}, LEASE)
        elif action == "lose":
            messages.clear()
            database.write(lambda c: c.execute(sa.text("UPDATE chunks SET queued_at = '2000-01-01 00:00:00.000000'")))
            database.write(dispatch.find_lost, {Priority.NORMAL: 0}, LEASE)

    database.write(lambda c: c.execute(sa.text("UPDATE chunks SET state = 'pending' WHERE state <> 'done'")))
    for message in take(database):
        mine = claim(database, message, "last")
        assert mine is not None
        end(mine)
    ended = progress(database, job_id)
    assert (ended.state, ended.failed, ended.remaining) == ("finished", len(failing), 0)
    assert rows(database, "SELECT count(*) FROM predictions") == [(20 - len(failing),)]
    assert rows(database, "SELECT count(*) FROM failures") == [(len(failing),)]


def test_what_a_chunk_costs_does_not_grow_with_its_job(sqlite: Database) -> None:
    def steps(records: int) -> list[int]:
        """Of SQLite's machine: to claim a chunk, to store its outcomes, to count it again, in a job of so many."""
        archive = f"/of {records}"
        job_id = make_job(sqlite, records, archive=archive, model=archive)
        chunk = [queued for queued in take(sqlite) if queued.job_id == job_id][1]
        with sqlite.read() as connection:
            plan = chunks.plan_of(connection, job_id)
        assert plan is not None
        counted: list[int] = []

        def count(work: Callable[..., Any], *arguments: object) -> Any:
            def counting(connection: sa.Connection) -> Any:
                counted.append(0)
                driver: Any = connection.connection.driver_connection
                driver.set_progress_handler(lambda: counted.append(counted.pop() + 1), 10)
                try:
                    return work(connection, *arguments)
                finally:
                    driver.set_progress_handler(None, 10)

            return sqlite.write(counting)

        mine = count(chunks.claim, plan, chunk.number, "host:1", "task", LEASE)
        count(chunks.store, mine, outcomes(mine.records), LEASE)
        count(jobs.recount, job_id, [chunk.number])
        return counted

    assert len(few := steps(40)) == len(many := steps(4000)) == 3
    assert all(more < 2 * less + 20 for less, more in zip(few, many, strict=True)), (few, many)
