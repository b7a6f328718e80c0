"""PTB-XL's labels: statements, and diagnostic superclasses by the rule of its benchmark (Strodthoff et al. 2021)."""

import re
from pathlib import Path

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation.labels import LabelledRecord, fold_of, text_file
from ecgbatch.records.archives.tables import Row, Table, cell
from ecgbatch.records.paths import write_down
from ecgbatch.settings import EcgbatchError

STATEMENTS = "scp_statements.csv"
CODES = re.compile(r"\{(?:'[^'\\]{1,40}': [0-9.]{1,10}(?:, |(?=\})))*\}")
"""How the column scp_codes looks: {'NORM': 100.0, 'SR': 0.0}."""
CODE = re.compile(r"'([^']+)'")


def labelled_records(database: Path, superclass_only: bool = True) -> list[LabelledRecord]:
    """The records of ptbxl_database.csv that have a superclass, or all of them, in the order of the file.

    A record has a superclass when one of its `scp_codes`, whatever its likelihood, has that `diagnostic_class` in
    scp_statements.csv, which must lie beside the database. The labels of a record without any are zeros. `path` is that
    of the recording at 100 Hz. Raises EcgbatchError when a file cannot be read as what it should be.
    """
    table = Table(text_file(_existing(database)), {})
    path, codes, fold = (_column(table, name) for name in ("filename_lr", "scp_codes", "strat_fold"))
    superclasses = _superclasses(database.with_name(STATEMENTS))
    records = []
    for row in table.rows():
        said = _codes(table, row, codes)
        number = fold_of(table, row, fold)
        if number is None:
            raise EcgbatchError(f"{database}, line {row.line}: it is in no fold")
        found = {superclasses.get(code) for code in said}
        if not superclass_only or found & set(LABELS):
            labels = tuple(int(label in found) for label in LABELS)
            statements = tuple(int(code in said) for code in superclasses)
            recording = write_down(cell(row.cells, path).strip())
            records.append(LabelledRecord(recording, number, row.age, row.sex, labels, statements))
    return records


def _codes(table: Table, row: Row, column: int) -> set[str]:
    text = cell(row.cells, column).strip()
    if len(text) > 10_000 or not CODES.fullmatch(text):
        raise EcgbatchError(f"{table.file.name}, line {row.line}: its scp_codes are not of the form {{'NORM': 100.0}}")
    return set(CODE.findall(text))


def _superclasses(file: Path) -> dict[str, str]:
    """The diagnostic class, in lower case, of each statement; empty for those of rhythm and form."""
    table = Table(text_file(_existing(file)), {})
    diagnosis = _column(table, "diagnostic_class")
    return {cell(row.cells, 0): cell(row.cells, diagnosis).strip().lower() for row in table.rows()}


def _column(table: Table, name: str) -> int:
    names = [column.strip().casefold() for column in table.header]
    if name not in names:
        raise EcgbatchError(f"{table.file.name} has no column {name}: it is not PTB-XL's")
    return names.index(name)


def _existing(file: Path) -> Path:
    if not file.exists():
        raise EcgbatchError(f"there is no file {file}: give PTB-XL's ptbxl_database.csv, with {STATEMENTS}")
    return file
