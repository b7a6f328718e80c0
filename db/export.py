"""Writes what came of a job into a file, a row for each record, however many there are."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.classes import model_of, probabilities_of, thresholds_of
from ecgbatch.db.schema import embeddings, failures, job_items, jobs, models, predictions, recordings
from ecgbatch.settings import EcgbatchError

TOGETHER = 10_000
SUFFIXES = (".csv", ".jsonl", ".parquet")

Columns: TypeAlias = Mapping[str, sa.ColumnElement[Any]]


def columns_of(connection: Connection, job_id: int) -> Columns:
    """What a row holds: the record, what the model says of it, where that comes from, or why it failed."""
    model_id = model_of(connection, job_id)
    probabilities, thresholds = probabilities_of(connection, model_id), thresholds_of(connection, model_id)
    return {
        "path": recordings.c.path,
        **{name: recordings.c[name] for name in ("age", "sex", "format", "device")},
        **probabilities,
        **{f"has_{name}": _reaches(probability, thresholds[name]) for name, probability in probabilities.items()},
        **{name: predictions.c[name] for name in ("flags", "amplitude", "limb_residual")},
        **{name: predictions.c[name] for name in ("input_sha256", "scored_at", "worker")},
        "model": models.c.name,
        "version": models.c.version,
        "fingerprint": models.c.fingerprint,
        **{name: failures.c[name] for name in ("stage", "reason", "detail", "failed_at")},
    }


def _reaches(probability: sa.ColumnElement[float], threshold: float) -> sa.ColumnElement[int]:
    """1 where the probability reaches the model's threshold, 0 where not, null where there is none."""
    reaches = sa.case((probability >= threshold, 1), (probability.is_not(None), 0))
    return sa.type_coerce(reaches, sa.SmallInteger)


class Which(StrEnum):
    """The records that are scored, those that failed, or all of a job, those to go included."""

    RESULTS = "results"
    FAILURES = "failures"
    ALL = "all"


_CHOSEN: Mapping[Which, sa.ColumnElement[bool]] = {
    Which.RESULTS: predictions.c.recording_id.is_not(None),
    Which.FAILURES: predictions.c.recording_id.is_(None) & failures.c.recording_id.is_not(None),
    Which.ALL: sa.true(),
}
"""As a job's counts have it: a failed record that its model has scored since counts as scored."""


def export(
    connection: Connection, job_id: int, file: Path, which: Which = Which.ALL, with_embeddings: bool = False
) -> int:
    """Writes a job's records to a `.csv`, `.jsonl` or `.parquet` file and returns how many; memory stays the same.

    With embeddings a Parquet file has one more column, `embedding`: a list of float32, which every reader of Parquet
    takes, and which holds the float16 that are stored as they are. The file appears when it is whole. Raises
    EcgbatchError for another suffix, embeddings in another file or of a job that kept none, a file that cannot be
    written, and for Parquet without pyarrow.
    """
    if file.suffix not in SUFFIXES:
        raise EcgbatchError(f"{file} has none of the suffixes {', '.join(SUFFIXES)}, which say what to write")
    if with_embeddings:
        _refuse_without_embeddings(connection, job_id, file)
    columns = columns_of(connection, job_id)
    if with_embeddings:
        columns = {**columns, "embedding": embeddings.c.features}
    unfinished = file.with_name(f".{file.name}.part")
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[file.suffix]
    try:
        with open(unfinished, "wb") as output:
            count = write(output, columns, _blocks(connection, job_id, which, columns))
        os.replace(unfinished, file)
    except OSError as error:
        raise EcgbatchError(f"cannot write {file}: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _refuse_without_embeddings(connection: Connection, job_id: int, file: Path) -> None:
    if file.suffix != ".parquet":
        raise EcgbatchError(f"embeddings are exported to .parquet, not to {file.suffix}: give such a FILE")
    if not connection.execute(sa.select(jobs.c.embeddings).where(jobs.c.id == job_id)).scalar():
        raise EcgbatchError(f"job {job_id} kept no embeddings: enqueue its archive again with --embeddings")


def _blocks(connection: Connection, job_id: int, which: Which, columns: Columns) -> Iterator[list[Sequence[Any]]]:
    """The job's records, TOGETHER at a time, in the order in which they were enqueued."""
    item, of_job = job_items.c.recording_id, job_items.c.job_id == job_id
    predicted = (predictions.c.recording_id == item) & (predictions.c.model_id == jobs.c.model_id)
    failed = (failures.c.recording_id == item) & (failures.c.job_id == job_items.c.job_id)
    source = job_items.join(jobs, jobs.c.id == job_items.c.job_id).join(models, models.c.id == jobs.c.model_id)
    source = source.join(recordings, recordings.c.id == item).outerjoin(predictions, predicted)
    source = source.outerjoin(failures, failed)
    if "embedding" in columns:
        embedded = (embeddings.c.recording_id == item) & (embeddings.c.model_id == jobs.c.model_id)
        source = source.outerjoin(embeddings, embedded)
    query = sa.select(*columns.values()).select_from(source).where(of_job, _CHOSEN[which])
    rows = iter(connection.execute(query.order_by(item).execution_options(yield_per=TOGETHER)))
    while block := list(islice(rows, TOGETHER)):
        yield [tuple(row) for row in block]


def _write_csv(output: IO[bytes], columns: Columns, blocks: Iterator[list[Sequence[Any]]]) -> int:
    import io

    count = 0
    text = io.TextIOWrapper(output, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for block in blocks:
        writer.writerows(list(map(_plain, row)) for row in block)
        count += len(block)
    text.flush()
    text.detach()
    return count


def _write_jsonl(output: IO[bytes], columns: Columns, blocks: Iterator[list[Sequence[Any]]]) -> int:
    count = 0
    for block in blocks:
        lines = (json.dumps(dict(zip(columns, map(_plain, row), strict=True))) + "\n" for row in block)
        output.write("".join(lines).encode())
        count += len(block)
    return count


def _write_parquet(output: IO[bytes], columns: Columns, blocks: Iterator[list[Sequence[Any]]]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise EcgbatchError("Parquet needs pyarrow: pip install 'ecgbatch[parquet]'") from None
    kinds = {
        sa.Float: pa.float64(),
        sa.SmallInteger: pa.int8(),
        sa.Text: pa.string(),
        sa.LargeBinary: pa.list_(pa.float32()),
    }
    time = pa.timestamp("us", "UTC")
    schema = pa.schema([(name, kinds.get(type(column.type), time)) for name, column in columns.items()])
    count = 0
    with parquet.ParquetWriter(output, schema) as writer:
        for block in blocks:
            values = [list(map(_floats, of)) if name == "embedding" else of for name, of in zip(columns, zip(*block))]
            arrays = [pa.array(of, field.type) for of, field in zip(values, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(block)
    return count


def _floats(features: bytes | None) -> Any:
    import numpy as np

    return None if features is None else np.frombuffer(features, "<f2").astype(np.float32)


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
