"""PTB-XL's labels: statements, and diagnostic superclasses by the rule of its benchmark (Strodthoff et al. 2021)."""

import ast
import csv
from pathlib import Path
from typing import NamedTuple

from ecgbatch.models.config import LABELS
from ecgbatch.settings import EcgbatchError

STATEMENTS = "scp_statements.csv"


class LabelledRecord(NamedTuple):
    """One row of ptbxl_database.csv: `labels` are 0 or 1 in the order of LABELS, age is in years.

    `statements` are 0 or 1 for each row of scp_statements.csv: diagnoses, and what is said of form and rhythm.
    """

    path: str
    fold: int
    age: float | None
    sex: float | None
    labels: tuple[int, ...]
    statements: tuple[int, ...]


def labelled_records(database: Path) -> list[LabelledRecord]:
    """The records of ptbxl_database.csv that have a superclass, in the order of the file.

    A record has a superclass when one of its `scp_codes`, whatever its likelihood, has that `diagnostic_class` in
    scp_statements.csv, which must lie beside the database. Records without any are left out. `path` is that of
    the recording at 100 Hz. Raises EcgbatchError when a file cannot be read as what it should be.
    """
    rows = _rows(database, ("scp_codes", "strat_fold", "filename_lr", "age", "sex"))
    statements = _rows(database.with_name(STATEMENTS), ("", "diagnostic_class"))
    superclasses = {row[""]: row["diagnostic_class"].lower() for row in statements}
    records = []
    for row in rows:
        try:
            codes = set(ast.literal_eval(row["scp_codes"]))
            age, sex = (float(row[key]) if row[key] else None for key in ("age", "sex"))
            fold = int(float(row["strat_fold"]))
        except (ValueError, SyntaxError, TypeError):
            raise EcgbatchError(f"{database}: cannot read the row of {row['filename_lr']}") from None
        found = {superclasses.get(code) for code in codes}
        if found & set(LABELS):
            labels = tuple(int(label in found) for label in LABELS)
            said = tuple(int(code in codes) for code in superclasses)
            records.append(LabelledRecord(row["filename_lr"], fold, age, sex, labels, said))
    return records


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise EcgbatchError(f"there is no file {path}: give PTB-XL's ptbxl_database.csv, with {STATEMENTS}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EcgbatchError(f"cannot read {path} ({error})") from None
    if not rows or any(rows[0].get(column) is None for column in columns):
        raise EcgbatchError(f"{path} lacks a column of {', '.join(filter(None, columns))}: it is not PTB-XL's")
    return rows
