"""The app while it is served, what it shows, and what is to be read on its pages."""

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from commands import PATIENCE, Command
from scoring import LEASE, claim, take
from sqlalchemy.engine import Connection

from ecgbatch.db import chunks, jobs
from ecgbatch.db.chunks import Outcome
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import Failure, Prediction, Window
from ecgbatch.db.terms import JobOptions
from ecgbatch.models.score_files import read_file, score_recording
from ecgbatch.models.scorer import Scorer
from ecgbatch.records.recording import Record, RecordError


@dataclass
class Served:
    """The app while it runs, and what it shows: two jobs of an archive, by the two models that ship."""

    url: str
    command: Command
    archive: Path
    database: Database

    def get(self, path: str, status: int = 200, host: str | None = None) -> str:
        headers = {} if host is None else {"Host": host}
        return asked(urllib.request.Request(self.url + path, headers=headers), status)

    def post(self, files: dict[str, bytes], status: int = 200, origin: str | None = None, **fields: str) -> str:
        """Sends files as the form does; follows to the page that shows what came of them."""
        body, kind = form(files, fields)
        headers = {"Content-Type": kind} | ({} if origin is None else {"Origin": origin})
        return asked(urllib.request.Request(f"{self.url}/score", body, headers), status)


def asked(request: urllib.request.Request, status: int) -> str:
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            code, content = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        code, content = error.code, error.read().decode()
    assert code == status, content
    return str(content)


def form(files: dict[str, bytes], fields: dict[str, str]) -> tuple[bytes, str]:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [
        f'name="files"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode() + content
        for name, content in files.items()
    ]
    body = b"".join(b"--of-the-form\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return body + b"--of-the-form--\r\n", "multipart/form-data; boundary=of-the-form"


def score_by(database: Database, archive: Path, scorer: Scorer, records: list[str]) -> int:
    """A finished job, as workers leave it, without workers."""

    def make(connection: Connection) -> int:
        model = scorer.model
        archive_id = jobs.register_archive(connection, archive.name, str(archive))
        about = (model.name, model.version, model.fingerprint, model.description)
        job_id, _ = jobs.open_job(connection, archive_id, jobs.register_model(connection, *about), JobOptions())
        jobs.add_records(connection, job_id, [Record(path) for path in records], 100)
        jobs.all_enqueued(connection, job_id)
        return job_id

    job_id = database.write(make)
    [chunk] = take(database)
    mine = claim(database, chunk)
    assert mine is not None
    database.write(chunks.store, mine, [outcome(scorer, archive, record) for record in mine.records], LEASE)
    return job_id


def outcome(scorer: Scorer, archive: Path, record: Record) -> Outcome:
    assert record.id is not None
    try:
        recording = read_file(archive / record.path)
    except RecordError as error:
        return Failure(record.id, error.stage, error.reason, error.detail, 1)
    found = score_recording(scorer, recording)
    values: Any = tuple(found.probabilities.values())
    about = (found.input_sha256, ",".join(found.flags))
    windows = (Window(0.0, values), Window(10.0, values)) if scorer.model.tells_superclasses else ()
    told: dict[str, Any] = {"format": "wfdb", "age": found.age, "sex": found.sex, "windows": windows}
    return Prediction(record.id, values, *about, **told)


def text_of(page: str) -> str:
    """What is to be read on a page, its white space made one."""

    class Text(HTMLParser):
        said = ""

        def handle_data(self, data: str) -> None:
            self.said += data

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.said += " " * (tag in ("td", "th", "p", "dd"))

    parser = Text()
    parser.feed(page)
    return " ".join(parser.said.split())


def paths(page: str) -> list[str]:
    """The records that a page lists."""
    cells = re.findall(r'records/\d+[^"]*">(.*?)</a>', page)
    return [text_of(cell) for cell in cells]
