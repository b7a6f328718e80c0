"""The way of a chunk's records: read → score → store. What each stage does is handed in."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ecgbatch.db.chunks import Outcome
from ecgbatch.db.outcomes import Failure
from ecgbatch.db.terms import Windows
from ecgbatch.models import suggestion
from ecgbatch.models.memory import keep_freed_memory
from ecgbatch.models.scorer import Scorer as ModelScorer
from ecgbatch.models.scorer import choose_kernel
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.quality import Quality
from ecgbatch.records.reading import read, read_windows
from ecgbatch.records.recording import Flag, Record, RecordError, Window
from ecgbatch.records.remote import AT_ONCE, url_of
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.outcomes import Outcomes, ReadWindow, failure_of
from ecgbatch.worker.watchdog import Watchdog

READ_TOGETHER = 32
"""How many windows are read at once: each change between reading and scoring costs a tenth of a millisecond."""

LONG_AT_ONCE = 4
"""Records that are fetched at the same time where all of each is read: an hour takes up to 400 MB while it is read."""

STORE_SECONDS = 0.1
"""How long outcomes wait to be stored together: a transaction costs more than its rows.

What a worker scored in this time is what its death can cost.
"""


class Scorer(Protocol):
    """A model that stays in memory, as `models.scorer.Scorer` is."""

    device: str
    batch_size: int

    @property
    def lead_sets(self) -> Collection[str]:
        """Of fewer than twelve leads, the sets that it scores."""

    def metadata(self, age: float | None, sex: float | None) -> tuple[tuple[float, float], tuple[str, ...]]:
        """Age and sex as `score` takes them, and the flags of what was filled in."""

    def clean(self, signals: NDArray[np.float64]) -> tuple[Any, Sequence[Quality]]:
        """(n, T, 12) mV at 100 Hz, as `score` takes it, and the quality of each record."""

    def score(self, cleaned: Any, metadata: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, T, 12), (n, 2) -> probabilities (n, K)."""

    def embed(self, cleaned: Any, metadata: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `score`, and beside it the features (n, F) that the classifier was given."""

    def uncertain(self, probabilities: Sequence[float]) -> Sequence[str]:
        """Of a record's probabilities, the classes of which both answers are possible."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What is scored of a record: its first ten seconds or all windows; with `lead_sets`, as few leads as one has."""

    windows: Windows = Windows.FIRST
    lead_sets: Collection[str] | None = None


Read: TypeAlias = Callable[[Settings, Path, Extent, str], Sequence[Window]]
ReadPath: TypeAlias = Callable[[str], Sequence[Window]]
Load: TypeAlias = Callable[[Settings, str], Scorer]
Store: TypeAlias = Callable[[Sequence[Outcome]], None]


def read_record(settings: Settings, root: Path, extent: Extent, path: str) -> Sequence[Window]:
    """What is scored of a record; raises RecordError."""
    min_seconds, links, lead_sets = settings.min_seconds, settings.follow_links, extent.lead_sets
    if extent.windows == Windows.ALL:
        return read_windows(root, path, min_seconds=min_seconds, follow_links=links, lead_sets=lead_sets)
    return [Window(None, read(root, path, min_seconds=min_seconds, follow_links=links, lead_sets=lead_sets))]


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
    """How a record is read (settings, archive's folder, extent, path), a model loaded (settings, fingerprint)."""

    read: Read = read_record
    load: Load = load_scorer


@dataclass(frozen=True)
class Batch:
    """Windows of the same length that are scored together: (n, T, 12) and (n, 2)."""

    cleaned: Any
    metadata: NDArray[np.float32]
    windows: list[ReadWindow]


@dataclass(frozen=True)
class Group:
    """Records that were read one after the other: all their windows, in batches, and those that could not be read."""

    batches: list[Batch]
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
    extent: Extent
    scorer: Scorer
    store: Store
    watchdog: Watchdog
    reader: ThreadPoolExecutor
    refused: frozenset[str]
    embeddings: bool = False
    times: Times = field(default_factory=Times)

    def run(self, root: Path, records: Sequence[Record]) -> None:
        """Brings each record to its outcome, batch by batch; the watchdog sees that each batch comes in time."""
        waiting: list[Outcome] = []
        stored_at = time.monotonic()
        outcomes = self._outcomes(root, records)
        while True:
            with self.watchdog.watching():
                batch = next(outcomes, None)
            if batch is None:
                break
            waiting += batch
            if time.monotonic() - stored_at > STORE_SECONDS:
                self._store(waiting)
                waiting, stored_at = [], time.monotonic()
        if waiting:
            self._store(waiting)

    def run_one(self, root: Path, record: Record) -> list[Outcome]:
        """The outcome of one record, which is not stored."""
        groups = read_groups(partial(self.read, self.settings, root, self.extent), self.scorer, [record])
        return [outcome for group in groups for outcomes in self._score(group) for outcome in outcomes]

    def _store(self, outcomes: Sequence[Outcome]) -> None:
        with self.times.taking("storing"):
            self.store(outcomes)

    def _outcomes(self, root: Path, records: Sequence[Record]) -> Iterator[list[Outcome]]:
        """The outcomes in the order of the records, after each batch; while a group is scored, the next is read."""
        read = partial(self.read, self.settings, root, self.extent)
        at_once = LONG_AT_ONCE if self.extent.windows == Windows.ALL else AT_ONCE
        with reading_ahead(read, root, records, at_once) as read_next:
            groups = read_groups(read_next, self.scorer, records)
            coming = self.reader.submit(self._next_group, groups)
            while (group := coming.result()) is not None:
                coming = self.reader.submit(self._next_group, groups)
                yield from self._score(group)

    def _next_group(self, groups: Iterator[Group]) -> Group | None:
        with self.times.taking("reading"):
            return next(groups, None)

    def _score(self, group: Group) -> Iterator[list[Outcome]]:
        """The outcomes that are there after each batch of a group."""
        if group.failures:
            yield list(group.failures)
        outcomes = Outcomes(self.refused, self.scorer.uncertain)
        for batch in group.batches:
            features = None
            with self.times.taking("scoring"):
                if self.embeddings:
                    probabilities, features = self.scorer.embed(batch.cleaned, batch.metadata)
                else:
                    probabilities = self.scorer.score(batch.cleaned, batch.metadata)
            yield outcomes.after(batch.windows, probabilities, features)


@contextmanager
def reading_ahead(read: ReadPath, root: Path, records: Iterable[Record], at_once: int) -> Iterator[ReadPath]:
    """What reads the records in turn: on this machine when asked; over a network, the next are asked for before."""
    if url_of(root) is None:
        yield read
        return
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="fetch")
    left = iter(records)
    coming = {record.path: pool.submit(read, record.path) for record in islice(left, at_once)}

    def read_next(path: str) -> Sequence[Window]:
        windows = coming.pop(path).result()
        coming.update({record.path: pool.submit(read, record.path) for record in islice(left, 1)})
        return windows

    try:
        yield read_next
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_groups(read: ReadPath, scorer: Scorer, records: Iterable[Record]) -> Iterator[Group]:
    """Reads and cleans records: as many at a time as have windows for a batch, or the next one if that has more."""
    size = max(READ_TOGETHER, scorer.batch_size)
    left = iter(records)
    while True:
        failures: list[Failure] = []
        found: list[tuple[Record, Sequence[Window]]] = []
        room = size
        while room > 0 and (record := next(left, None)):
            try:
                windows = read(record.path)
            except RecordError as error:
                failures.append(failure_of(record, error))
                room -= 1
            else:
                found.append((record, windows))
                room -= len(windows)
        if not found and not failures:
            return
        yield Group(_batches(scorer, found), failures)


def _batches(scorer: Scorer, found: Sequence[tuple[Record, Sequence[Window]]]) -> list[Batch]:
    """Batches of windows of the same length, whichever record they are of, no larger than the scorer likes them."""
    by_length: dict[int, list[tuple[Record, Window, int]]] = {}
    for record, windows in found:
        for window in windows:
            by_length.setdefault(len(window.recording.signal), []).append((record, window, len(windows)))
    return [
        _clean(scorer, same[start : start + scorer.batch_size])
        for same in by_length.values()
        for start in range(0, len(same), scorer.batch_size)
    ]


def _clean(scorer: Scorer, found: Sequence[tuple[Record, Window, int]]) -> Batch:
    cleaned, qualities = scorer.clean(np.stack([window.recording.signal for _, window, _ in found]))
    metadata, windows = [], []
    for (record, window, of), quality in zip(found, qualities, strict=True):
        recording = window.recording
        age = record.age if record.age is not None else recording.age
        sex = record.sex if record.sex is not None else recording.sex
        values, flags = scorer.metadata(age, sex)
        metadata.append(values)
        quality = quality.of_leads(recording.lead_set)
        all_flags = frozenset((*recording.flags, *flags, *quality.flags()))
        windows.append(ReadWindow(record, window, of, quality, all_flags))
    return Batch(cleaned, np.array(metadata, np.float32), windows)


def flags_to_refuse(settings: Settings) -> frozenset[str]:
    """The flags with which a record fails. Raises EcgbatchError for one that there is not."""
    refused = frozenset(flag.strip() for flag in (settings.refuse or "").split(",") if flag.strip())
    if unknown := sorted(refused.difference(Flag)):
        raise EcgbatchError(f"ECGBATCH_REFUSE: there is no flag {unknown[0]!r}; there are {', '.join(Flag)}")
    return refused
