"""What becomes of files that were dropped: they are read as an archive of their own, scored, and gone."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from tornado.httputil import HTTPFile

from ecgbatch.models.score_files import Score, score_recording
from ecgbatch.records.archives.search import Search
from ecgbatch.records.archives.walk import walk
from ecgbatch.records.places import is_zip
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Record, RecordError, Recording
from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer.app.source import Source

LARGEST_UPLOAD = 64 << 20
"""Bytes of all files that are dropped at once."""
MOST_RECORDS = 50
"""That are scored of one upload: who has more has an archive."""
LONGEST_NAME = 200


@dataclass(frozen=True)
class Dropped:
    """A record of an upload: what was read and scored, or why it could not be."""

    path: str
    recording: Recording | None = None
    score: Score | None = None
    error: str = ""


@dataclass
class Upload:
    """The records of an upload, the model that scored them, by fingerprint and classes, and whether there were more."""

    fingerprint: str
    labels: tuple[str, ...]
    records: list[Dropped] = field(default_factory=list)
    more: bool = False


def score_files(
    source: Source, files: Sequence[HTTPFile], age: float | None, sex: int | None, fewer_leads: bool
) -> Upload:
    """Scores files; `age` and `sex` go before what they tell. Raises EcgbatchError for what holds no recording.

    With `fewer_leads` records of as few leads are scored as the model is declared for.

    The files lie in a folder of the system's for temporary files as long as they are read, open to this user alone.
    """
    scorer = source.scorer()
    upload = Upload(scorer.model.fingerprint, scorer.model.labels)
    lead_sets = scorer.lead_sets if fewer_leads else None
    with tempfile.TemporaryDirectory(prefix="ecgbatch-app-") as folder:
        root = _laid_down(files, Path(folder))
        records = list(islice(_records(root), MOST_RECORDS + 1))
        upload.more = len(records) > MOST_RECORDS
        for record in records[:MOST_RECORDS]:
            try:
                recording = read(root, record.path, min_seconds=source.settings.min_seconds, lead_sets=lead_sets)
                told = (record.age if age is None else age, record.sex if sex is None else sex)
                score = score_recording(scorer, recording, record.path, *told)
                upload.records.append(Dropped(record.path, recording, score))
            except RecordError as error:
                upload.records.append(Dropped(record.path, error=str(error)))
    return upload


def _laid_down(files: Sequence[HTTPFile], folder: Path) -> Path:
    """Writes the files; returns the archive that they are, a folder or a zip file."""
    for file in files:
        (folder / _name(file.filename)).write_bytes(file.body)
    if len(files) == 1 and is_zip(only := folder / _name(files[0].filename)):
        return only
    return folder


def _name(given: str) -> str:
    """A file's own name, without any folder: what a header calls its signal file."""
    name = os.path.basename(given.replace("\\", "/")).replace("\0", "")
    if name in ("", ".", "..") or len(os.fsencode(name)) > LONGEST_NAME:
        raise EcgbatchError(f"each file needs a name, of {LONGEST_NAME} bytes at most")
    return name


def _records(root: Path) -> Iterator[Record]:
    records = walk(Search(root))
    first = next(records, None)
    if first is None:
        raise EcgbatchError(
            "no recording of a format that is known here; of WFDB drop the header (.hea) and the signal file together"
        )
    yield from chain([first], records)
