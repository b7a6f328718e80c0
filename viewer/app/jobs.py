"""The pages about jobs: all of them, one with its records, two compared."""

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from ecgbatch.db import browse, compare, overview, reports, scored
from ecgbatch.db.browse import Job, Page
from ecgbatch.db.classes import thresholds_of
from ecgbatch.db.outcomes import as_shown
from ecgbatch.db.overview import FailedFor, Overview
from ecgbatch.db.scored import About
from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer.app.asked import Asked, number
from ecgbatch.viewer.app.handler import Handler
from ecgbatch.viewer.app.source import Source
from ecgbatch.viewer.words import FLAGS, REASONS

ON_A_PAGE = 50
MOST_JOBS = 200
"""On the first page, the newest."""


class Jobs(Handler):
    """All jobs, the newest first, and how far they are."""

    async def answer(self, *_: str) -> None:
        jobs = await self.read(_jobs, self.source)
        self.show("jobs.html", "Jobs", jobs=jobs[:MOST_JOBS], count=len(jobs), running=_any_runs(jobs))


class Records(Handler):
    """One job, and its records, a page of them."""

    async def answer(self, *arguments: str) -> None:
        asked = Asked.of(self.get_argument)
        job, about, found = await self.read(_records, self.source, int(arguments[0]), asked)
        values = {
            "asked": asked,
            "about": about,
            "page": found,
            "flags": FLAGS,
            "reasons": REASONS,
            "labels": about.labels,
        }
        title = f"Job {job.progress.job_id}: {job.archive} by {job.model}"
        self.show(
            "records.html", title, job=job, running=_any_runs([job]), sorts=_sorts(about.labels), Asked=Asked, **values
        )


class Compare(Handler):
    """Two jobs of one archive by different models: where they agree, and which records change side."""

    async def answer(self, *_: str) -> None:
        first, second = (number(name, self.get_argument(name, "")) for name in ("first", "second"))
        asked = Asked.of(self.get_argument).superclass
        jobs = await self.read(_jobs, self.source)
        if first is None or second is None:
            return self.show("compare.html", "Compare two jobs", jobs=jobs, pair=None)
        pair, found, superclass, apart = await self.read(_compared, self.source, first, second, asked)
        values = {"found": found, "apart": apart, "superclass": superclass}
        title = f"Jobs {pair[0].progress.job_id} and {pair[1].progress.job_id} compared"
        return self.show("compare.html", title, jobs=jobs, pair=pair, most=compare.MOST, **values)


def _jobs(source: Source) -> list[Overview]:
    with source.read() as connection:
        return overview.overviews(connection)[::-1]


def _any_runs(jobs: list[Overview]) -> bool:
    return any(not job.progress.ended for job in jobs)


def _records(
    source: Source, number: int, asked: Asked
) -> tuple[Overview, "AboutJob", Page[browse.Found] | Page[browse.Failed]]:
    with source.read() as connection:
        job = browse.job_of(connection, number)
        [shown] = overview.overviews(connection, number)
        about = AboutJob(connection, job)
        if asked.show == "failed":
            reason, text = asked.reason or None, asked.text or None
            return shown, about, browse.failed_page(connection, job, reason, text, asked.place(), ON_A_PAGE)
        wanted = asked.wanted(about.thresholds)
        return shown, about, browse.page(connection, job, wanted, asked.place(), ON_A_PAGE)


class AboutJob:
    """A job's model, how many records have each of its classes, and why some have failed."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self.job: About = scored.about(connection, job.id)
        self.thresholds = thresholds_of(connection, job.model_id)
        self.labels = tuple(self.thresholds)
        self.found = reports.found(connection, job.id)
        self.failures: list[FailedFor] = overview.failures_by_reason(connection, job.id)


def _sorts(labels: Sequence[str]) -> dict[str, str]:
    """The orders to choose from, and how each is called."""
    sorts = {"": "as enqueued", "path": "path"}
    for label in labels:
        sorts |= {f"-{label}": f"{as_shown(label)}, highest first", label: f"{as_shown(label)}, lowest first"}
    return sorts


def _compared(
    source: Source, first: int, second: int, asked: str
) -> tuple[list[Overview], compare.Comparison, str, list[compare.Apart]]:
    with source.read() as connection:
        one, other = browse.job_of(connection, first), browse.job_of(connection, second)
        pair = [overview.overviews(connection, job.id)[0] for job in (one, other)]
        found = compare.compare(connection, one, other)
        superclass = asked or next(iter(found.agreements))
        if superclass not in found.agreements:
            raise EcgbatchError(f"superclass is one of {', '.join(found.agreements)}, not {asked!r}")
        return pair, found, superclass, compare.apart(connection, one, other, superclass, ON_A_PAGE)
