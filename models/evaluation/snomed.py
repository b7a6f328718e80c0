"""Labels that an archive's headers carry: SNOMED CT codes, as the PhysioNet/CinC challenges of 2020 and 2021 have them.

`snomed.csv` has the codes of those archives: dx_mapping_scored.csv and dx_mapping_unscored.csv of the challenge of
2021, ConditionNames_SNOMED-CT.csv of Chapman-Shaoxing-Ningbo. What a code means follows PTB-XL, whose labels the models
know:

- mi, sttc, cd, hyp: the `diagnostic_class`, in scp_statements.csv, of the statement that says the same; and sttc for
  all that says that ST or T have changed, which PTB-XL counts as form where no diagnosis is made of it;
- norm: sinus rhythm, slow, fast or irregular as it may be. Of the 7,048 records of PTB-XL's folds 1 to 8 of which this
  is said, and nothing of another superclass, 7,031 are NORM; the rest have another rhythm besides, or bigeminy;
- none: what those 7,031 may have as well: single ectopic beats, another axis, low voltage;
- rhythm: any other rhythm, which is no superclass, and not NORM;
- unclear: it often goes with a superclass, but not always, as abnormal Q waves and ST elevation with an infarction,
  high voltage with hypertrophy; or it tells of a disease, not of an ECG.
"""

import csv
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.labels import LabelledRecord, Labels
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.archives.search import Search
from ecgbatch.records.paths import on_disk
from ecgbatch.records.recording import RecordError
from ecgbatch.settings import EcgbatchError

_TABLE = Path(__file__).with_name("snomed.csv")
_NORMAL, _BESIDE_NORMAL, _RHYTHM = "norm", "none", "rhythm"
_CODES = re.compile(r"dx\s?:\s?(\d{6,18}(?:\s?,\s?\d{6,18}){0,99})\s?,?", re.ASCII | re.IGNORECASE)


def archive_labels(root: Path, superclass_only: bool = True, follow_links: bool = False) -> Labels:
    """The labels in the comments `#Dx: CODE,CODE` of an archive's headers.

    Left out, and counted in `left_out`, are records of which a code is unclear or not in the table, and those without
    codes; with `superclass_only` also those that have none of the five superclasses, which are zeros otherwise. The
    digest is of paths and codes. Raises EcgbatchError where no record has labels.
    """
    digest, records, left_out = hashlib.sha256(), [], 0
    for path, age, sex, codes in _coded_records(root, follow_links):
        digest.update(f"{path}\t{','.join(codes)}\n".encode())
        labels = labels_of(codes)
        if labels is None or (superclass_only and not any(labels)):
            left_out += 1
        else:
            records.append(LabelledRecord(path, None, age, sex, labels))
    if not records:
        raise EcgbatchError(f"no header in {root} has labels (#Dx: with SNOMED CT codes): give a table with --labels")
    return Labels(tuple(LABELS), records, digest.hexdigest(), left_out)


def labels_of(codes: list[str]) -> tuple[int, ...] | None:
    """0 or 1 for each superclass; None where the codes leave one open."""
    known = _superclasses()
    found = {known.get(code, "") for code in codes}
    if not codes or not found <= {*LABELS, _BESIDE_NORMAL, _RHYTHM}:
        return None
    if not found <= {_NORMAL, _BESIDE_NORMAL}:
        found -= {_NORMAL}
    return tuple(int(label in found) for label in LABELS)


def _coded_records(root: Path, follow_links: bool) -> Iterator[tuple[str, float | None, int | None, list[str]]]:
    """Path, age, sex and codes of each record, in the order in which a job finds them."""
    archive = Archive(root, follow_links=follow_links)
    search = Search(archive.root, follow_links)
    for record in archive.records():
        try:
            _, comments = search.header(on_disk(record.path)[0])
        except RecordError:
            comments = []
        match = next(filter(None, map(_CODES.fullmatch, comments)), None)
        yield record.path, record.age, record.sex, [code.strip() for code in match[1].split(",")] if match else []


@lru_cache(maxsize=1)
def _superclasses() -> dict[str, str]:
    with _TABLE.open(newline="") as table:
        return {row["code"]: row["superclass"] for row in csv.DictReader(table)}
