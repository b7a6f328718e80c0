"""The app, served as a user has it: what its pages show, whom it answers, and what becomes of dropped files.

Those that click need a Chromium; without one they skip.
"""

import base64
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from browser import CHROMIUM, Page, browser
from commands import Command, free_port, listens, running, wait_until
from scoring import make_job, score, take
from served_app import Served, asked, paths, score_by, text_of

from ecgbatch.db.browse import Place, TooSlow, Wanted, failed_page, job_of, page, within
from ecgbatch.db.compare import apart, compare
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade
from ecgbatch.db.record import record_of
from ecgbatch.models.config import LABELS, MEANINGS
from ecgbatch.models.score_files import read_file, score_recording
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.synthetic import write_archive

HOSTILE = "<script>alert(1)<!-- & \"'"
PASSWORD = "pässword: of the app"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("app")
    archive = folder / "archive"
    write_archive(archive, records=4)
    first = sorted(archive.glob("*.hea"))[0]
    for suffix in (".hea", ".dat"):
        shutil.copy(first.with_suffix(suffix), archive / f"{HOSTILE}{suffix}")
    records = [*(archive / "RECORDS").read_text().split(), HOSTILE, "<b>gone"]
    database = Database(f"sqlite:///{folder}/test.db")
    upgrade(database)
    for model in ("xlstm-ecg:1.3.0", "xlstm-ecg:1.0.0"):
        score_by(database, archive, Scorer(Registry(SHIPPED).find(model)), records)
    port = str(free_port())
    command = Command(folder, ECGBATCH_DATABASE_URL=f"sqlite:///{folder}/test.db", ECGBATCH_APP_PORT=port)
    with running(command.start("app", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"the app: http://127.0.0.1:{port}\n"
        yield Served(f"http://127.0.0.1:{port}", command, archive, database)


def test_jobs_and_their_records(served: Served) -> None:
    jobs_page = text_of(served.get("/"))
    assert jobs_page.index("Job 2: archive by xlstm-ecg:1.0.0") < jobs_page.index("Job 1: archive by xlstm-ecg:1.3.0")
    assert "finished 6 records · 5 scored · 1 failed" in jobs_page
    listed = served.get("/jobs/1")
    assert all(meaning in text_of(listed) for meaning in MEANINGS.values())
    assert "never for diagnosis" in listed
    assert len(paths(listed)) == 5
    assert HOSTILE in paths(listed)
    assert "<script>alert" not in listed
    failed = served.get("/jobs/1?show=failed")
    assert paths(failed) == ["<b>gone"]
    assert "missing_header: there is no" in text_of(failed)


def test_records_are_filtered_and_sorted(served: Served) -> None:
    rows = served.command.rows(
        "SELECT path, age, norm, mi, flags, has_norm FROM results WHERE version = '1.3.0' ORDER BY norm DESC, path"
    )
    falling = [row["path"] for row in rows]
    assert set(paths(served.get("/jobs/1?sort=-norm"))[:1]) <= {rows[0]["path"], HOSTILE}
    assert paths(served.get("/jobs/1?sort=norm"))[-1] in falling[:2]
    assert paths(served.get("/jobs/1?sort=path")) == sorted(falling)
    found = {row["path"] for row in rows if row["has_norm"]}
    assert set(paths(served.get("/jobs/1?superclass=norm"))) == found
    middle = rows[2]["norm"]
    assert set(paths(served.get(f"/jobs/1?superclass=norm&least={middle}"))) >= {falling[0], falling[2]}
    flagged = {row["path"] for row in rows if "resampled" in row["flags"].split(",")}
    assert set(paths(served.get("/jobs/1?flag=resampled"))) == flagged
    assert paths(served.get("/jobs/1?text=ALERT(1)%3C!")) == [HOSTILE]
    assert "No record is so" in served.get("/jobs/1?text=%25")


@pytest.mark.parametrize("sort", ["id", "path", "mi"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_follow_each_other_in_both_directions(served: Served, sort: str, descending: bool) -> None:
    wanted = Wanted(sort=sort, descending=descending)
    with within(served.database, 60) as connection:
        job = job_of(connection, 1)
        whole = [row.id for row in page(connection, job, wanted, Place(), 100).rows]
        assert len(whole) == 5
        for at, after in enumerate(whole):
            on = page(connection, job, wanted, Place(after=after), 2)
            assert [row.id for row in on.rows] == whole[at + 1 : at + 3]
            assert (on.more_before, on.more_after) == (True, at + 3 < len(whole))
            back = page(connection, job, wanted, Place(before=after), 2)
            assert [row.id for row in back.rows] == whole[max(at - 2, 0) : at]
            assert (back.more_before, back.more_after) == (at > 2, True)


def test_each_database_is_looked_through(database: Database) -> None:
    """On PostgreSQL too, through a connection that cannot write."""
    both = [make_job(database, 7, chunk_size=10, model=model) for model in "ab"]
    for chunk, failing in zip(take(database), ("r2", "r3"), strict=True):
        score(database, chunk, frozenset({failing}))
    readable = Database(database.url.render_as_string(hide_password=False), read_only=True)
    with within(readable, 60) as connection:
        one, other = (job_of(connection, job) for job in both)
        wanted = Wanted("mi", 0.05, 0.5, text="R", sort="path", descending=True)
        middle = page(connection, one, wanted, Place(after=6), 2)
        assert [row.path for row in middle.rows] == ["r4", "r3"]
        assert (middle.more_before, middle.more_after) == (True, True)
        assert page(connection, one, Wanted(sort="mi", flag="short"), Place(), 9).rows == []
        assert [row.path for row in failed_page(connection, other, "truncated", "r3", Place(), 9).rows] == ["r3"]
        agreement = compare(connection, one, other)
        assert (agreement.records, agreement.agreements["norm"].both) == (5, 5)
        assert apart(connection, one, other, "norm", 9) == []
        whole = record_of(connection, one.id, 3)
        assert (whole.path, whole.failure is not None, len(whole.said)) == ("r2", True, 1)
    with readable.read() as connection, pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
        connection.exec_driver_sql("DELETE FROM predictions")


def test_nothing_takes_longer_than_it_may(database: Database) -> None:
    series = "(SELECT 1 AS n UNION ALL SELECT 2)"
    crossed = ", ".join(f"{series} AS s{at}" for at in range(40))
    with pytest.raises(TooSlow, match=r"longer than 0.2 seconds"), within(database, 0.2) as connection:
        connection.exec_driver_sql(f"SELECT COUNT(*) FROM {crossed}")


def test_a_record_has_its_picture_scores_and_provenance(served: Served) -> None:
    [row] = served.command.rows(
        "SELECT recording_id, input_sha256, norm, mi, fingerprint FROM predictions JOIN models m ON m.id = model_id "
        "WHERE version = '1.3.0' ORDER BY recording_id LIMIT 1"
    )
    found = served.get(f"/jobs/1/records/{row['recording_id']}")
    assert found.count("<polyline") == 13
    said = text_of(found)
    for words in (row["input_sha256"], row["fingerprint"], f"{row['mi']:.3f}", "xlstm-ecg:1.0.0", "hypertrophy (HYP)"):
        assert words in said
    assert f"10 s {row['norm']:.3f} {row['mi']:.3f}" in said
    assert served.get(f"/jobs/1/records/{row['recording_id']}?rows=1&raw=1").count("<polyline") == 12
    explained = served.get(f"/jobs/1/records/{row['recording_id']}?explain=mi")
    assert explained.count("opacity=") == 240
    assert "no cause and no sum" in text_of(explained).lower()
    follows = served.get(f"/jobs/1/records/{row['recording_id']}/next?sort=path")
    assert follows.count("<polyline") == 13


def test_a_file_that_has_changed_or_is_gone_is_told(served: Served) -> None:
    [row] = served.command.rows("SELECT id, path FROM recordings WHERE path LIKE 'synthetic%' ORDER BY path LIMIT 1")
    header = served.archive / f"{row['path']}.hea"
    before = header.read_bytes()
    try:
        header.write_bytes(before + b"# more\n")
        assert "has changed since it was scored" in served.get(f"/jobs/1/records/{row['id']}")
        header.unlink()
        assert "cannot be drawn: missing_header" in served.get(f"/jobs/1/records/{row['id']}?explain=mi")
    finally:
        header.write_bytes(before)


def test_two_jobs_are_compared(served: Served) -> None:
    said = text_of(served.get("/compare?first=1&second=2&superclass=mi"))
    assert "5 records were scored by both" in said
    both = served.command.rows(
        "SELECT COUNT(*) AS n FROM results a JOIN results b ON a.path = b.path AND a.version < b.version "
        "WHERE a.has_norm = 1 AND b.has_norm = 1"
    )
    assert f"normal ECG (NORM) {both[0]['n']} " in said
    assert "by the same model" in served.get("/compare?first=1&second=1", status=400)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/jobs/9", 404, "there is no job 9"),
        ("/jobs/1/records/99", 404, "job 1 has no record 99"),
        ("/jobs/1?sort=worker", 400, "sort is one of id, path"),
        ("/jobs/1?superclass=mi&least=much", 400, "least is a number"),
        ("/jobs/1?after=99", 404, "has no record 99"),
        (f"/compare?first={'9' * 5000}&second=1", 400, "first is a number"),
        ("/jobs/1/records/1?explain=x", 400, "explain is one of norm"),
        ("/scored/" + "a" * 22, 404, "drop them again"),
        ("/static/../server.py", 404, "no such page"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_line(served: Served, path: str, status: int, words: str) -> None:
    assert words in text_of(served.get(path, status))


def test_dropped_files_are_scored_and_not_kept(served: Served) -> None:
    name = next(served.archive.glob("synthetic*.hea")).stem
    files = {f"../../{name}{suffix}": (served.archive / f"{name}{suffix}").read_bytes() for suffix in (".hea", ".dat")}
    before = sorted(served.command.folder.rglob("*"))
    shown = served.post(files, age="61", sex="female")
    scored = score_recording(
        Scorer(Registry(SHIPPED).find(None)), read_file(served.archive / f"{name}.hea"), age=61, sex=1
    )
    for words in (
        "61 years, female",
        scored.input_sha256,
        *(f"{value:.3f}" for value in scored.probabilities.values()),
    ):
        assert words in text_of(shown)
    assert shown.count("<polyline") == 13
    assert sorted(served.command.folder.rglob("*")) == before
    several = served.post(files | {"no.csv": b"1,2,3\n"} | {f"b/{HOSTILE}.hea": b"nonsense"})
    assert "unreadable_header" in text_of(several)
    assert "<script>alert" not in several


@pytest.mark.parametrize(
    ("files", "fields", "status", "words"),
    [
        ({}, {}, 400, "choose a file first"),
        ({"a.txt": b"nothing"}, {}, 400, "no recording of a format that is known here"),
        ({"..": b"nothing"}, {}, 400, "each file needs a name"),
        ({"a.hea": b"x"}, {"age": "old"}, 400, "age is a number of years"),
        ({"a.hea": b"x" * (64 << 20)}, {}, 413, "may have 64 MB"),
    ],
)
def test_uploads_that_make_no_sense_are_refused(
    served: Served, files: dict[str, bytes], fields: dict[str, str], status: int, words: str
) -> None:
    assert words in text_of(served.post(files, status, **fields))


def test_pages_from_elsewhere_get_nothing(served: Served) -> None:
    assert "this is not evil.example" in served.get("/", 403, host="evil.example:8501")
    assert served.get("/", host="localhost")
    assert "from elsewhere" in served.post({"a.hea": b"x"}, 403, origin="http://evil.example")
    with urllib.request.urlopen(f"{served.url}/jobs/1", timeout=60) as answer:
        headers = answer.headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Set-Cookie"] is None
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", served.get("/jobs/1"))


def test_others_need_the_password(served: Served, tmp_path: Path) -> None:
    served.command.environment |= {"ECGBATCH_APP_ADDRESS": "0.0.0.0", "ECGBATCH_APP_PORT": (port := str(free_port()))}
    try:
        said = served.command("app", status=1).stderr
        assert "set ECGBATCH_APP_PASSWORD_FILE" in said
        assert len(said.splitlines()) == 1
        (tmp_path / "password").write_text(PASSWORD + "\n")
        served.command.environment["ECGBATCH_APP_PASSWORD_FILE"] = str(tmp_path / "password")
        with running(served.command.start("app", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)) as process:
            assert process.stdout is not None
            assert PASSWORD not in process.stdout.readline()
            for given in (None, "", "ecgbatch:", f"ecgbatch:{PASSWORD[:-1]}", f"other:{PASSWORD}"):
                asked(request_by(port, given), 401)
            assert "Job 1" in asked(request_by(port, f"ecgbatch:{PASSWORD}"), 200)
    finally:
        for name in ("ADDRESS", "PASSWORD_FILE"):
            served.command.environment.pop(f"ECGBATCH_APP_{name}", None)


def request_by(port: str, user: str | None) -> urllib.request.Request:
    known = {} if user is None else {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    return urllib.request.Request(f"http://127.0.0.1:{port}/", headers=known)


def test_without_a_database_files_are_scored_all_the_same(tmp_path: Path) -> None:
    command = Command(tmp_path, ECGBATCH_APP_PORT=(port := str(free_port())))
    with running(command.start("app", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)):
        wait_until(lambda: listens(int(port)))
        assert "there is no database" in asked(request_by(port, None), 400)
        url = f"http://127.0.0.1:{port}/score"
        assert "Drop files here" in asked(urllib.request.Request(url), 200)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as found:
        yield found


@needs_chromium
def test_clicking_through(served: Served, chromium: Page) -> None:
    chromium.look(1000)
    chromium.open(served.url)
    chromium.click("article:last-of-type a")
    assert "Job 1: archive by xlstm-ecg:1.3.0" in chromium.text()
    chromium.fill("[name=text]", "alert")
    chromium.click("form button")
    assert chromium.ask("document.querySelectorAll('.records tbody tr').length") == 1
    chromium.click(".records tbody a")
    assert chromium.ask("document.querySelector('h1').innerText") == HOSTILE
    drawn = chromium.ask("document.querySelector('svg.ecg').getBoundingClientRect().toJSON()")
    assert drawn["width"] > 700
    assert drawn["height"] > 300
    chromium.click("#leads span a")
    assert "Shaded: what normal ECG" in chromium.text()
    chromium.click(".pager a")
    assert chromium.ask("document.querySelectorAll('.records tbody tr').length") == 1
    assert chromium.problems() == []


@needs_chromium
def test_progress_is_live(served: Served, chromium: Page) -> None:
    job = make_job(served.database, 3, archive="/elsewhere")
    chromium.open(f"{served.url}/jobs/{job}")
    assert "3 to go" in chromium.text()
    chromium.ask("window.same = true")
    [chunk] = take(served.database)
    score(served.database, chunk)
    wait_until(lambda: "finished 3 records" in chromium.text())
    assert chromium.ask("window.same"), "the page was loaded again"


@needs_chromium
def test_dropping_a_file(served: Served, chromium: Page) -> None:
    record = next(served.archive.glob("synthetic*.hea"))
    chromium.open(f"{served.url}/score")
    chromium.choose_files("#files", record, record.with_suffix(".dat"))
    assert record.name in chromium.ask("document.querySelector('#chosen').innerText")
    chromium.click("form button")
    assert chromium.ask("document.querySelector('h1').innerText") == record.stem
    assert chromium.ask("document.querySelectorAll('svg.ecg polyline').length") == 13
    assert chromium.ask("document.querySelectorAll('.scores tr').length") == len(LABELS)
    assert chromium.problems() == []


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_telephone_and_the_night(served: Served, chromium: Page, dark: bool) -> None:
    chromium.look(400, dark=dark)
    for path in ("/", "/jobs/1", "/jobs/1?show=failed", "/jobs/1/records/1", "/compare?first=1&second=2", "/score"):
        chromium.open(served.url + path)
        assert chromium.ask("document.documentElement.scrollWidth") <= 400, path
        ground = chromium.ask("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == dark
