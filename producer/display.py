"""How jobs are shown: `status`, and the summary at the end of `run`."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy.engine import Connection

from ecgbatch.db import reports
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import LABEL_COLUMNS, as_shown
from ecgbatch.db.overview import Overview, doubt_about, failures_by_reason, flags_of, overviews, typical_amplitude
from ecgbatch.db.workers import Presence, presence
from ecgbatch.printing import duration, print_mapping, print_note, print_rows, say


def show_jobs(database: Database, as_json: bool = False) -> None:
    """A line for each job, and what keeps workers from working on those that have not ended."""
    with database.read() as connection:
        jobs, present = overviews(connection), presence(connection)
    if as_json:
        rows = [
            {**asdict(job.progress), "archive": job.archive, "model": job.model, "seconds_left": job.seconds_left}
            for job in jobs
        ]
        print_rows(list(rows[0]) if rows else [], [list(row.values()) for row in rows], as_json=True)
        return
    if not jobs:
        say("there are no jobs yet; `ecgbatch enqueue ARCHIVE` makes one")
        return
    columns = ["job", "archive", "model", "state", "records", "scored", "failed", "remaining", "records/s", "time left"]
    print_rows(columns, [_line(job) for job in jobs])
    if not all(job.progress.ended for job in jobs):
        for hindrance in hindrances(present):
            print_note(hindrance)


def hindrances(present: Presence) -> list[str]:
    """What keeps workers from working: that there are none, or what each of them says."""
    if present.present:
        return list(present.problems)
    since = "and there never was one"
    if present.last is not None:
        since = f"since {present.last_seen:%Y-%m-%d %H:%M:%S} UTC, when {present.last} was last heard of"
    return [f"no worker is there {since}: start one with `ecgbatch worker`"]


def _line(job: Overview) -> list[Any]:
    counts = job.progress
    left = "" if job.seconds_left is None else duration(job.seconds_left)
    about = [counts.job_id, job.archive, job.model, counts.state]
    return [*about, counts.total, counts.scored, counts.failed, counts.remaining, counts.records_per_second, left]


def show_job(database: Database, job_id: int, as_json: bool = False) -> None:
    """Everything about one job: counts, superclasses, flags, failures by reason, and where the results are."""
    with database.read() as connection:
        [job] = overviews(connection, job_id)
        facts = _facts_in_json(connection, job) if as_json else _facts(connection, job, database.where)
    print_mapping(facts, as_json)
    if not as_json:
        print_note("research use only, never for diagnosis")


def _facts(connection: Connection, job: Overview, database: str) -> dict[str, Any]:
    counts = job.progress
    facts: dict[str, Any] = {"job": counts.job_id, "archive": job.archive, "model": job.model, "state": counts.state}
    facts |= {"records": f"{counts.total:,}", "scored": f"{counts.scored:,}", "failed": f"{counts.failed:,}"}
    if counts.reused:
        facts["scored before"] = f"{counts.reused:,}"
    if counts.remaining:
        facts["remaining"] = f"{counts.remaining:,}"
    if job.worked_seconds:
        facts["time"] = duration(job.worked_seconds)
    if counts.records_per_second is not None:
        facts["records per second"] = counts.records_per_second
    if job.seconds_left is not None:
        facts["time left"] = duration(job.seconds_left)
    if not counts.ended:
        present = presence(connection)
        facts["workers"] = "; ".join([f"{present.present}", *hindrances(present)])
    found = reports.found(connection, counts.job_id)
    facts |= {f"records with {as_shown(name)}": f"{records:,}" for name, records in found.items()}
    amplitude = typical_amplitude(connection, counts.job_id)
    if amplitude is not None:
        facts["typical amplitude"] = f"{amplitude:.2f} mV"
    if (doubt := doubt_about(amplitude)) is not None:
        facts["in doubt"] = doubt
    flags = flags_of(connection, counts.job_id)
    facts |= {f"flag {flag}": f"{records:,}" for flag, records in flags.items()}
    for failed in failures_by_reason(connection, counts.job_id):
        facts[f"failed: {failed.reason}"] = f"{failed.records:,}, as {failed.path}: {failed.detail}"
    facts |= {"results in": database, "next": f"ecgbatch query {_kind_of(found)}"}
    if counts.failed:
        facts["what failed"] = f"ecgbatch failures {counts.job_id}"
    return facts


def _kind_of(found: Collection[str]) -> str:
    """What a model tells of: also the name of the stored query that counts it."""
    return "superclasses" if tuple(found) == LABEL_COLUMNS else "classes"


def _facts_in_json(connection: Connection, job: Overview) -> dict[str, Any]:
    job_id = job.progress.job_id
    return {
        **asdict(job.progress),
        "archive": job.archive,
        "model": job.model,
        "worked_seconds": job.worked_seconds,
        "seconds_left": job.seconds_left,
        _kind_of(found := reports.found(connection, job_id)): {as_shown(name): n for name, n in found.items()},
        "typical_amplitude": (amplitude := typical_amplitude(connection, job_id)),
        "in_doubt": doubt_about(amplitude),
        "flags": flags_of(connection, job_id),
        "failures": [asdict(failed) for failed in failures_by_reason(connection, job_id)],
    }
