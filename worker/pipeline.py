"""The way of a chunk's records: read → score → store. What each stage does is handed in."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db.chunks import Outcome
from ecgbatch.db.outcomes import Failure, Prediction
from ecgbatch.models import suggestion
from ecgbatch.models.memory import keep_freed_memory
from ecgbatch.models.scorer import Scorer as ModelScorer
from ecgbatch.models.scorer import choose_kernel
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.quality import Quality
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Flag, Reason, Record, RecordError, Recording
from ecgbatch.records.remote import AT_ONCE, url_of
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.watchdog import Watchdog

READ_TOGETHER = 32
"""How many records are read at once: each change between reading and scoring costs a tenth of a millisecond."""

STORE_SECONDS = 0.1
"""How long outcomes wait to be stored together: a transaction costs more than its rows.

What a worker scored in this time is what its death can cost.
"""


class Scorer(Protocol):
    """A model that stays in memory, as `models.scorer.Scorer` is."""

    device: str
    batch_size: int

    def metadata(self, age: float | None, sex: float | None) -> tuple[tuple[float, float], tuple[str, ...]]:
        """Age and sex as `score` takes them, and the flags of what was filled in."""

    def clean(self, signals: NDArray[np.float64]) -> tuple[Any, Sequence[Quality]]:
        """(n, T, 12) mV at 100 Hz, as `score` takes it, and the quality of each record."""

    def score(self, cleaned: Any, metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, T, 12), (n, 2) -> probabilities (n, 5)."""


Read: TypeAlias = Callable[[Settings, Path, str], Recording]
Load: TypeAlias = Callable[[Settings, str], Scorer]
Store: TypeAlias = Callable[[Sequence[Outcome]], None]


def read_recording(settings: Settings, root: Path, path: str) -> Recording:
    """The recording of a record; raises RecordError."""
    return read(root, path, min_seconds=settings.min_seconds, follow_links=settings.follow_links)


def load_scorer(settings: Settings, fingerprint: str) -> Scorer:
    """The model of this fingerprint; raises EcgbatchError if this machine has it not, or cannot run it."""
    model = Registry(settings.model_dir).by_fingerprint(fingerprint)
    kernel = choose_kernel(model.config, settings.device, settings.kernel)
    suggested = suggestion.find(settings.model_dir, fingerprint, settings.device, kernel)
    batch_size = settings.batch_size or (suggested.batch_size if suggested else None)
    keep_freed_memory()
    return ModelScorer(model, settings.device, kernel, batch_size)


@dataclass(frozen=True)
class Stages:
    """How a record is read (settings, archive's folder, path) and how a model is loaded (settings, fingerprint)."""

    read: Read = read_recording
    load: Load = load_scorer


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record that was read, without its signal, and all that there is to be said of it."""

    id: int
    recording: Recording
    quality: Quality
    flags: str


@dataclass(frozen=True)
class Batch:
    """Records of the same length that are scored together, (n, T, 12) and (n, 2), and failures on the way to it."""

    cleaned: Any
    metadata: NDArray[np.float32]
    records: list[ReadRecord]
    failures: list[Failure]


@dataclass
class Times:
    """Seconds that the stages took; reading goes on beside scoring."""

    reading: float = 0.0
    scoring: float = 0.0
    storing: float = 0.0

    @contextmanager
    def taking(self, stage: str) -> Iterator[None]:
        """Adds the time that passes within to a stage's."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.monotonic() - began)


@dataclass
class Pipeline:
    """Takes records from their files to the database, reading the next while the present ones are scored."""

    settings: Settings
    read: Read
    scorer: Scorer
    store: Store
    watchdog: Watchdog
    reader: ThreadPoolExecutor
    refused: frozenset[str]
    times: Times = field(default_factory=Times)

    def run(self, root: Path, records: Sequence[Record]) -> None:
        """Brings each record to its outcome, batch by batch; the watchdog sees that each batch comes in time."""
        waiting: list[Outcome] = []
        stored_at = time.monotonic()
        batches = self._batches(root, records)
        while True:
            with self.watchdog.watching():
                batch = next(batches, None)
                if batch is None:
                    break
                with self.times.taking("scoring"):
                    waiting += score_batch(self.scorer, batch, self.refused)
            if time.monotonic() - stored_at > STORE_SECONDS:
                self._store(waiting)
                waiting, stored_at = [], time.monotonic()
        if waiting:
            self._store(waiting)

    def run_one(self, root: Path, record: Record) -> list[Outcome]:
        """The outcome of one record, which is not stored."""
        [*batches] = self._read_group(partial(self.read, self.settings, root), [record])
        return [outcome for batch in batches for outcome in score_batch(self.scorer, batch, self.refused)]

    def _store(self, outcomes: Sequence[Outcome]) -> None:
        with self.times.taking("storing"):
            self.store(outcomes)

    def _batches(self, root: Path, records: Sequence[Record]) -> Iterator[Batch]:
        """Batches in the order of the records; while one group of them is scored, the next is read."""
        with reading_ahead(partial(self.read, self.settings, root), root, records) as read:
            yield from self._batches_of(read, records)

    def _batches_of(self, read: Callable[[str], Recording], records: Sequence[Record]) -> Iterator[Batch]:
        size = max(READ_TOGETHER, self.scorer.batch_size)
        groups = deque(records[start : start + size] for start in range(0, len(records), size))
        coming = deque([self.reader.submit(self._read_group, read, groups.popleft())]) if groups else deque()
        while coming:
            batches = coming.popleft().result()
            if groups:
                coming.append(self.reader.submit(self._read_group, read, groups.popleft()))
            yield from batches

    def _read_group(self, read: Callable[[str], Recording], records: Sequence[Record]) -> list[Batch]:
        with self.times.taking("reading"):
            return read_batches(read, self.scorer, records)


@contextmanager
def reading_ahead(
    read: Callable[[str], Recording], root: Path, records: Sequence[Record]
) -> Iterator[Callable[[str], Recording]]:
    """What reads a record: on this machine when it is asked; over a network many have been asked for before."""
    if url_of(root) is None:
        yield read
        return
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")
    try:
        coming = {record.path: pool.submit(read, record.path) for record in records}
        yield lambda path: coming.pop(path).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_batches(read: Callable[[str], Recording], scorer: Scorer, records: Sequence[Record]) -> list[Batch]:
    """Reads and cleans records: batches of the same length, no larger than the scorer likes them."""
    failures: list[Failure] = []
    by_length: dict[int, list[tuple[Record, Recording]]] = {}
    for record in records:
        try:
            recording = read(record.path)
        except RecordError as error:
            failures.append(failure_of(record, error))
        else:
            by_length.setdefault(len(recording.signal), []).append((record, recording))
    batches = [
        _clean(scorer, found[start : start + scorer.batch_size])
        for found in by_length.values()
        for start in range(0, len(found), scorer.batch_size)
    ]
    if failures:
        batches.append(Batch(None, np.empty((0, 2), np.float32), [], failures))
    return batches


def _clean(scorer: Scorer, found: Sequence[tuple[Record, Recording]]) -> Batch:
    cleaned, qualities = scorer.clean(np.stack([recording.signal for _, recording in found]))
    metadata, records = [], []
    for (record, recording), quality in zip(found, qualities, strict=True):
        age = record.age if record.age is not None else recording.age
        sex = record.sex if record.sex is not None else recording.sex
        values, flags = scorer.metadata(age, sex)
        metadata.append(values)
        all_flags = ",".join(sorted({*recording.flags, *flags, *quality.flags()}))
        records.append(ReadRecord(_id(record), recording, quality, all_flags))
    return Batch(cleaned, np.array(metadata, np.float32), records, [])


def flags_to_refuse(settings: Settings) -> frozenset[str]:
    """The flags with which a record fails. Raises EcgbatchError for one that there is not."""
    refused = frozenset(flag.strip() for flag in (settings.refuse or "").split(",") if flag.strip())
    if unknown := sorted(refused.difference(Flag)):
        raise EcgbatchError(f"ECGBATCH_REFUSE: there is no flag {unknown[0]!r}; there are {', '.join(Flag)}")
    return refused


def score_batch(scorer: Scorer, batch: Batch, refused: frozenset[str] = frozenset()) -> list[Outcome]:
    """The outcomes of a batch."""
    outcomes: list[Outcome] = list(batch.failures)
    if not batch.records:
        return outcomes
    for read_record, probabilities in zip(
        batch.records, scorer.score(batch.cleaned, batch.metadata).tolist(), strict=True
    ):
        if flags := refused.intersection(read_record.flags.split(",")):
            outcomes.append(Failure(read_record.id, "read", Reason.REFUSED, ", ".join(sorted(flags)), 1))
        elif all(map(math.isfinite, probabilities)):
            outcomes.append(_prediction(read_record, probabilities))
        else:
            detail = "the model's probabilities are not numbers"
            outcomes.append(Failure(read_record.id, "score", Reason.NOT_FINITE, detail, 1))
    return outcomes


def _prediction(read_record: ReadRecord, probabilities: list[float]) -> Prediction:
    norm, mi, sttc, cd, hyp = probabilities
    recording = read_record.recording
    return Prediction(
        read_record.id,
        (norm, mi, sttc, cd, hyp),
        recording.sha256,
        read_record.flags,
        *read_record.quality,
        format=recording.format,
        device=recording.device,
        age=recording.age,
        sex=recording.sex,
    )


def failure_of(record: Record, error: RecordError) -> Failure:
    """The failure of a record that could not be read, or took its process along."""
    return Failure(_id(record), error.stage, error.reason, error.detail, error.attempts)


def _id(record: Record) -> int:
    assert record.id is not None, "a record from the database has an id"
    return record.id
