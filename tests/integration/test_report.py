"""The page of `ecgbatch report`: the job's numbers, nothing from elsewhere, nothing that breaks out of it."""

import json
import shutil
from html.parser import HTMLParser

import pytest
from commands import Command
from scoring import THRESHOLDS, make_job, score, take

from ecgbatch.db import scored
from ecgbatch.db.engine import Database
from ecgbatch.db.functions import SecondsFromNow
from ecgbatch.db.schema import job_workers
from ecgbatch.db.scored import Scored
from ecgbatch.models.config import LABELS, MEANINGS
from ecgbatch.records.synthetic import write_archive
from ecgbatch.viewer.summary import BINS, TOGETHER, summarise

HOSTILE = "<script>alert(1)<!-- & \"'"
VOID = {"meta", "br", "path", "rect", "polyline"}


class Page(HTMLParser):
    """What a page consists of; fails where a tag is not closed in its turn."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command where a job of seven records, one of a hostile name and one that cannot be read, was reported."""
    folder = tmp_path_factory.mktemp("reported")
    write_archive(folder / "archive", records=5)
    for suffix in (".hea", ".dat"):
        name = next((folder / "archive").glob(f"*{suffix}"))
        shutil.copy(name, folder / "archive" / f"{HOSTILE}{suffix}")
    with open(folder / "archive/RECORDS", "a") as listed:
        listed.write(f"{HOSTILE}\n<b>gone\n")
    command = Command(folder)
    command("run", folder / "archive", status=3)
    command("report", "1", "report.html")
    return command


def page(command: Command, name: str = "report.html") -> Page:
    return Page((command.folder / name).read_text(encoding="utf-8"))


def test_it_has_the_numbers_of_the_job(reported: Command) -> None:
    text = page(reported).text
    job = json.loads(reported("status", "1", "--json").stdout)
    for words in (
        *MEANINGS.values(),
        "xlstm-ecg:1.3.0",
        "age_missing" if "age_missing" in job["flags"] else "resampled",
    ):
        assert words in text
    assert f"records{job['total']}scored{job['scored']}failed{job['failed']}to go0" in text
    [model] = reported.rows("SELECT fingerprint FROM models")
    assert model["fingerprint"] in text
    for label, found in job["superclasses"].items():
        assert f"({label}){found}{found / job['scored']:.1%}" in text
    assert "missing_header1" in text
    assert "never for diagnosis" in text


def test_it_needs_nothing_else_and_nothing_breaks_out_of_it(reported: Command) -> None:
    found = page(reported)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name in ("src", "href") or name.startswith("on")]
    assert "<b>gone" in found.text
    assert "prefers-color-scheme: dark" in found.text
    assert "width=device-width" in str(found.attributes)


def test_records_are_drawn_and_those_that_changed_are_told(reported: Command) -> None:
    drawn = page(reported)
    figures = drawn.tags.count("figure")
    assert figures >= 2
    assert drawn.tags.count("polyline") == 13 * figures
    assert "has changed" not in drawn.text
    paths = [row["path"] for row in reported.rows("SELECT path FROM results ORDER BY path")]
    headers = [reported.folder / "archive" / f"{path}.hea" for path in paths]
    before = [header.read_bytes() for header in headers]
    try:
        for header in headers[1:]:
            header.write_bytes(header.read_bytes() + b"# more\n")
        headers[0].unlink()
        reported("report", "1", "again.html")
    finally:
        for header, content in zip(headers, before, strict=True):
            header.write_bytes(content)
    again = page(reported, "again.html").text
    assert again.count("has changed") + again.count("cannot be drawn: missing_header") == figures


def test_what_cannot_be_written_is_one_line(reported: Command) -> None:
    for arguments, message in ((["9", "a.html"], "there is no job 9"), (["1", "no/a.html"], "cannot write no/a.html")):
        said = reported("report", *arguments, status=1).stderr
        assert message in said
        assert len(said.splitlines()) == 1


def test_what_it_is_made_of_in_both_databases(database: Database) -> None:
    job = make_job(database, 9)
    for chunk in take(database)[:2]:
        score(database, chunk, frozenset({"r2"}))
    with database.read() as connection:
        about = scored.about(connection, job)
        records = list(scored.scored(connection, job))
    assert (about.root, about.model, about.fingerprint, about.finished_at) == ("/archive", "m:1", "a", None)
    assert about.description["thresholds"] == THRESHOLDS
    assert [record.path for record in records] == ["r0", "r1", "r3", "r4", "r5", "r6", "r7"]
    assert records[0] == Scored("r0", 50.0, 1, (0.9, 0.1, 0.2, 0.3, 0.4), (), None, "00")
    took = job_workers.update().values(first_scored_at=SecondsFromNow(-600), last_scored_at=SecondsFromNow(600))
    database.write(lambda connection: connection.execute(took))
    with database.read() as connection:
        rate = scored.rate_of(connection, job)
    assert rate is not None
    assert rate.seconds == pytest.approx(20, abs=1)
    assert (sum(rate.records), sum(rate.records[20:40])) == (7, 7)


def test_the_summary_counts_every_record_once() -> None:
    def record(n: int) -> Scored:
        probabilities = (n % 100 / 100, 0.0, 1.0, 0.5, 0.2)
        return Scored(f"r{n}", n % 90, n % 2, probabilities, ("short",) if n % 3 else (), None, "")

    thresholds = dict(zip(LABELS, (0.745, 0.5, 0.5, 0.1, 0.9), strict=True))
    count = TOGETHER + 500
    summary = summarise(map(record, range(count)), thresholds)
    assert summary.records == count
    assert summary.distributions.sum(axis=1).tolist() == [count] * 5
    assert summary.distributions[0].tolist() == [count // BINS] * BINS
    assert summary.distributions[2, -1] == summary.distributions[1, 0] == count
    assert summary.found.tolist() == [count // 4, 0, count, count, 0]
    assert sum(group.records for (by, _), group in summary.groups.items() if by == "age") == count
    assert summary.groups["sex", "female"].found.tolist() == [
        sum(n % 100 >= 75 for n in range(1, count, 2)),
        0,
        *[count // 2] * 2,
        0,
    ]
    assert summary.highest["norm"].path == "r99"
    assert [each.path for each in summary.uncertain] == ["r74", "r75", "r174", "r175"]
    assert (summary.flagged["short"].path, summary.flags["short"]) == ("r1", sum(n % 3 > 0 for n in range(count)))
