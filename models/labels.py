"""The diagnostic superclasses of PTB-XL's records, by the rule of its benchmark (Strodthoff et al. 2021)."""

import ast
import csv
from pathlib import Path
from typing import NamedTuple

from models.config import LABELS
from settings import EcgbatchError

STATEMENTS = "scp_statements.csv"


class LabelledRecord(NamedTuple):
    """One row of ptbxl_database.csv: `labels` are 0 or 1 in the order of LABELS, age is in years."""

    path: str
    fold: int
    age: float | None
    sex: float | None
    labels: tuple[int, ...]


def labelled_records(database: Path) -> list[LabelledRecord]:
    """The records of ptbxl_database.csv that have a superclass, in the order of the file.

    A record has a superclass when one of its `scp_codes`, whatever its likelihood, has that `diagnostic_class` in
    scp_statements.csv, which must lie beside the database. Records without any are left out. `path` is that of
    the recording at 100 Hz. Raises EcgbatchError when a file cannot be read as what it should be.
    """
    rows = _rows(database, ("scp_codes", "strat_fold", "filename_lr", "age", "sex"))
    superclass = _superclass_of_code(database.with_name(STATEMENTS))
    records = []
    for row in rows:
        try:
            found = {superclass[code] for code in ast.literal_eval(row["scp_codes"]) if code in superclass}
            age, sex = (float(row[key]) if row[key] else None for key in ("age", "sex"))
            fold = int(float(row["strat_fold"]))
        except (ValueError, SyntaxError, TypeError):
            raise EcgbatchError(f"{database}: cannot read the row of {row['filename_lr']}") from None
        if found:
            labels = tuple(int(label in found) for label in LABELS)
            records.append(LabelledRecord(row["filename_lr"], fold, age, sex, labels))
    return records


def _superclass_of_code(statements: Path) -> dict[str, str]:
    rows = _rows(statements, ("", "diagnostic_class"))
    return {row[""]: row["diagnostic_class"].lower() for row in rows if row["diagnostic_class"].lower() in LABELS}


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
