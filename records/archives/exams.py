"""The records of CODE-15 and SaMi-Trop: `exams.csv` names exams that are rows of HDF5 files, or WFDB records."""

from collections.abc import Iterator, Mapping

from ecgbatch.records.archives.lines import TextFile
from ecgbatch.records.archives.search import Search
from ecgbatch.records.archives.tables import Table, cell
from ecgbatch.records.paths import write_down
from ecgbatch.records.recording import Record
from ecgbatch.settings import EcgbatchError

ROWS_OF = "exams.hdf5"
"""SaMi-Trop's file, whose rows have no names: they are in the order of the table."""


def exam_records(search: Search, file: TextFile, columns: Mapping[str, str]) -> Iterator[Record]:
    """The exams of the table, but for those of HDF5 files that are not there, which are counted as passed over.

    An exam is the WFDB record of its ID where the first has one; else the row of its ID in its `trace_file`, or the
    row of `exams.hdf5` that has its place. Raises EcgbatchError as Table.
    """
    table = Table(file, columns)
    exam_id = table.index("path", needed=True)
    trace_file = table.index("trace_file")
    there: dict[str, bool] = {}
    as_wfdb: bool | None = None
    for place, row in enumerate(table.rows()):
        exam = cell(row.cells, exam_id).strip()
        if not exam:
            raise EcgbatchError(f"{file.name} has no exam_id on line {row.line}: give each line one or remove the line")
        traces = cell(row.cells, trace_file).strip() if trace_file is not None else ROWS_OF
        if as_wfdb is None:
            as_wfdb = search.place.exists(f"{exam}.hea")
        if traces not in there:
            there[traces] = bool(traces) and search.file_of(traces) is not None
        if as_wfdb:
            yield Record(write_down(exam), row.age, row.sex)
        elif there[traces]:
            yield Record(write_down(traces, exam if trace_file is not None else str(place)), row.age, row.sex)
        else:
            search.passed_over.add(f"exams whose file {traces or 'is not named and'} is not there", exam)
