"""One worker process: the resident model and the way of a chunk through read, clean, score and store."""

import math
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db import chunks
from ecgbatch.db.chunks import LeaseLost, Record, WaitingChunk
from ecgbatch.db.engine import Database
from ecgbatch.models.config import LABELS
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import SAMPLES, Reason, RecordError
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.isolation import in_quarantine
from ecgbatch.worker.lease import Lease

Row = dict[str, Any]

READ_TOGETHER = 32
"""How many records are read at once: each change between reading and scoring costs a tenth of a millisecond."""

STORE_SECONDS = 0.1
"""How long the ends of records wait to be stored together: a transaction costs more than its rows.

What a worker scored in this time is what its death can cost.
"""


@dataclass(frozen=True)
class Batch:
    """Records ready to be scored, (n, 1000, 12) and (n, 2), their rows so far, and those that could not be read."""

    signals: NDArray[np.float32]
    metadata: NDArray[np.float32]
    rows: list[Row]
    failed: list[Row]

    def parts(self, size: int) -> "Iterator[Batch]":
        """The same in batches of at most `size`; what failed goes with the first."""
        for start in range(0, max(1, len(self.rows)), size):
            part = slice(start, start + size)
            failed = self.failed if start == 0 else []
            yield Batch(self.signals[part], self.metadata[part], self.rows[part], failed)


class Ends(NamedTuple):
    """The rows of records that were scored, and of those that failed."""

    scored: list[Row]
    failed: list[Row]


class ScoringProcess:
    """Scores chunks, one at a time, by models that stay resident."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.lease_length = timedelta(seconds=settings.lease_seconds)
        self._lease = Lease(database, self.lease_length, settings.record_seconds)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
        self._scorers: dict[str, Scorer] = {}

    def scorer(self, fingerprint: str) -> Scorer:
        """The model of this fingerprint, loaded when it is first asked for."""
        if fingerprint not in self._scorers:
            model = Registry(self.settings.model_dir).by_fingerprint(fingerprint)
            wanted = self.settings
            self._scorers[fingerprint] = Scorer(model, wanted.device, wanted.kernel, wanted.batch_size)
        return self._scorers[fingerprint]

    def score_chunk(self, chunk: WaitingChunk, task_id: str) -> str:
        """Brings each record of a chunk to its end and says what came of it, in one line.

        Raises EcgbatchError when the database stays away, or when something unexpected happened in a batch.
        """
        scorer = self.scorer(chunk.model)
        key = (chunk.job_id, chunk.number)
        claim = self.database.write(chunks.claim, *key, self.name, task_id, self.lease_length)
        if claim is None:
            return "nothing to do: done, cancelled, or with another worker"
        records = [record for record in chunk.records if record.id not in claim.ended]
        done = failed = 0
        try:
            with self._lease.on(claim):
                for batch in self._batches(scorer, Path(chunk.root), records, claim.attempt):
                    self.database.write(chunks.store, claim, *batch, self.lease_length)
                    done += len(batch.scored)
                    failed += len(batch.failed)
        except LeaseLost:
            self.database.write(chunks.release, *key, task_id)
            return f"stopped, job cancelled or chunk with another worker: scored {done}, failed {failed}"
        except Exception as error:
            if isinstance(error, EcgbatchError):
                raise
            # A MemoryError that got out would end all of the worker's processes: celery takes it for the last word.
            cause = f"{type(error).__name__}: {error}"
            raise EcgbatchError(f"{cause}; the chunk's records will be tried one by one") from error
        return f"scored {done}, failed {failed}"

    def _batches(self, scorer: Scorer, root: Path, records: list[Record], attempt: int) -> Iterator[Ends]:
        """The ends of records, batch by batch.

        A chunk whose first attempt did not come to its end is suspected: its records go one by one, each in
        a process of its own.
        """
        if attempt > 1:
            import scipy.signal  # noqa: F401 - else each fork that resamples a record would import it anew

            return (self._alone(scorer, root, record) for record in records)
        coming = _read_ahead(self._reader, scorer, root, records)
        batches = (part for together in coming for part in together.parts(scorer.batch_size))
        return _gathered(self._lease.watched(_score(scorer, batch) for batch in batches))

    def _alone(self, scorer: Scorer, root: Path, record: Record) -> Ends:
        """The end of a record that might take its process down.

        A GPU cannot be used in a forked process, so there only the reading is shielded.
        """

        def read_and_score() -> Ends:
            return _score(scorer, read_batch(scorer, root, [record]))

        seconds = self.settings.record_seconds
        try:
            if scorer.device == "cpu":
                return in_quarantine(read_and_score, seconds)
            in_quarantine(lambda: read(root, record.path), seconds)
            return read_and_score()
        except RecordError as error:
            return Ends([], [failure_row(record.id, error)])


def read_batch(scorer: Scorer, root: Path, records: Sequence[Record]) -> Batch:
    """Reads and cleans records; those that cannot be read become rows of `failures`."""
    signals = np.empty((len(records), SAMPLES, len(LEADS)))
    metadata: list[tuple[float, float]] = []
    rows: list[Row] = []
    failed: list[Row] = []
    for record in records:
        try:
            recording = read(root, record.path)
            if len(recording.signal) < SAMPLES:
                raise RecordError(Reason.WRONG_DURATION, f"{len(recording.signal)} samples instead of {SAMPLES}")
        except RecordError as error:
            failed.append(failure_row(record.id, error))
            continue
        values, flags = scorer.metadata(record.age, record.sex)
        signals[len(rows)] = recording.signal
        metadata.append(values)
        flags_text = ",".join(sorted({*recording.flags, *flags}))
        rows.append({"recording_id": record.id, "input_sha256": recording.sha256, "flags": flags_text})
    cleaned = scorer.clean(signals[: len(rows)])
    return Batch(cleaned, np.array(metadata, np.float32).reshape(-1, 2), rows, failed)


def failure_row(recording_id: int, error: RecordError) -> Row:
    """The row of `failures` for a recording."""
    return {
        "recording_id": recording_id,
        "stage": error.stage,
        "reason": error.reason,
        "detail": error.detail,
        "attempts": error.attempts,
    }


def _score(scorer: Scorer, batch: Batch) -> Ends:
    if not batch.rows:
        return Ends([], batch.failed)
    scored, failed = [], list(batch.failed)
    for row, probabilities in zip(batch.rows, scorer.score(batch.signals, batch.metadata).tolist(), strict=True):
        if all(map(math.isfinite, probabilities)):
            scored.append(row | dict(zip(LABELS, probabilities, strict=True)))
        else:
            error = RecordError(Reason.NOT_FINITE, "the model's probabilities are not numbers", stage="score")
            failed.append(failure_row(row["recording_id"], error))
    return Ends(scored, failed)


def _gathered(batches: Iterable[Ends]) -> Iterator[Ends]:
    """The ends of batches, put together for STORE_SECONDS."""
    scored: list[Row] = []
    failed: list[Row] = []
    since = time.monotonic()
    for batch in batches:
        scored += batch.scored
        failed += batch.failed
        if time.monotonic() - since > STORE_SECONDS:
            yield Ends(scored, failed)
            scored, failed, since = [], [], time.monotonic()
    if scored or failed:
        yield Ends(scored, failed)


def _read_ahead(reader: Executor, scorer: Scorer, root: Path, records: list[Record]) -> Iterator[Batch]:
    """What was read together, in order; the next is read while the present is scored."""
    size = max(READ_TOGETHER, scorer.batch_size)
    groups = [records[i : i + size] for i in range(0, len(records), size)]
    coming = deque(reader.submit(read_batch, scorer, root, group) for group in groups[:1])
    for group in groups[1:]:
        batch = coming.popleft().result()
        coming.append(reader.submit(read_batch, scorer, root, group))
        yield batch
    for last in coming:
        yield last.result()
