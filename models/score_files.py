"""Scores a few records in this process: no server, no database."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgbatch.models.scorer import Scorer
from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.archives.search import PassedOver, Search
from ecgbatch.records.leads import LEADS
from ecgbatch.records.paths import write_down
from ecgbatch.records.reading import read
from ecgbatch.records.recording import MIN_SECONDS, Flag, Reason, RecordError, Recording, flag_about
from ecgbatch.settings import EcgbatchError

HEADER = ".hea"
MEMBER = "::"


@dataclass(frozen=True)
class Score:
    """What a model says of one record.

    probabilities: of each class of the model, as a rule the superclasses, in its order; independent of each other.
    superclasses: those of the classes whose probability reaches the model's threshold.
    flags: what was mended, filled in or looks implausible.
    age, sex: in years, 0 male and 1 female; None where the training's mean was taken.
    input_sha256: the digest of the record's files.
    """

    path: str
    probabilities: dict[str, float]
    superclasses: tuple[str, ...]
    flags: tuple[str, ...]
    age: float | None
    sex: int | None
    input_sha256: str


def read_file(
    path: str | Path,
    *,
    min_seconds: float = MIN_SECONDS,
    follow_links: bool = False,
    lead_sets: Collection[str] | None = None,
) -> Recording:
    """Reads one record of any format: a file, for WFDB its header or signal file, or `FILE::ID` for one of many.

    `lead_sets` as `records.reading.read` takes them. Raises RecordError.
    """
    folder, name, member = _place(str(path))
    record = write_down(name, member)
    recording = read(folder, record, min_seconds=min_seconds, follow_links=follow_links, lead_sets=lead_sets)
    if recording.format != "wfdb":
        return recording
    _, comments = Search(folder, follow_links, PassedOver()).header(name)  # as an archive's listing has them
    age, sex = from_comments(comments)
    return replace(recording, age=age, sex=sex)


def score_recording(
    scorer: Scorer, recording: Recording, path: str = "", age: float | None = None, sex: int | None = None
) -> Score:
    """Scores what was read; `age` and `sex` go before what the file tells. Raises RecordError."""
    if recording.lead_set is not None and recording.lead_set not in scorer.lead_sets:
        raise RecordError(Reason.MISSING_LEAD, f"{scorer.model} is not declared for {recording.lead_set} alone")
    age = recording.age if age is None else age
    sex = recording.sex if sex is None else sex
    metadata, filled_in = scorer.metadata(age, sex)
    cleaned, [quality] = scorer.clean(recording.signal[np.newaxis])
    [probabilities] = scorer.score(cleaned, np.array([metadata], np.float32)).tolist()
    if not all(map(math.isfinite, probabilities)):
        raise RecordError(Reason.NOT_FINITE, "the model's probabilities are not numbers", stage="score")
    flags = {*recording.flags, *filled_in, *quality.of_leads(recording.lead_set).flags()}
    if uncertain := scorer.uncertain(probabilities):
        flags.add(flag_about(Flag.UNCERTAIN, *uncertain))
    by_label = dict(zip(scorer.model.labels, probabilities, strict=True))
    thresholds = scorer.model.thresholds
    return Score(
        path,
        by_label,
        tuple(label for label, probability in by_label.items() if probability >= thresholds[label]),
        tuple(sorted(flags)),
        age,
        sex,
        recording.sha256,
    )


def score_signals(
    scorer: Scorer,
    signals: ArrayLike,
    ages: Sequence[float | None] | None = None,
    sexes: Sequence[int | None] | None = None,
) -> NDArray[np.float32]:
    """Probabilities (n, K), in the model's order, of signals (n, T, 12), in mV at 100 Hz, leads as in LEADS.

    Ages are in years, sexes 0 male and 1 female; for None the training's mean is taken. Raises EcgbatchError for
    arrays of another shape or with values that are no numbers.
    """
    given = np.asarray(signals, np.float64)
    if given.ndim != 3 or given.shape[2] != len(LEADS):
        raise EcgbatchError(f"signals must be of the shape (n, T, {len(LEADS)}), not {given.shape}")
    if not np.isfinite(given).all():
        raise EcgbatchError("signals must be finite numbers")
    ages = ages if ages is not None else [None] * len(given)
    sexes = sexes if sexes is not None else [None] * len(given)
    if not len(ages) == len(sexes) == len(given):
        raise EcgbatchError(f"{len(given)} signals, {len(ages)} ages and {len(sexes)} sexes are not as many")
    if not len(given):
        return np.empty((0, len(scorer.model.labels)), np.float32)
    metadata = [scorer.metadata(age, sex).values for age, sex in zip(ages, sexes, strict=True)]
    cleaned, _ = scorer.clean(given)
    return scorer.score(cleaned, np.array(metadata, np.float32))


def _place(path: str) -> tuple[Path, str, str | None]:
    """The folder of a file, its name there, without suffix for WFDB, and the record's ID in it."""
    file, separator, member = path.partition(MEMBER)
    real = Path(os.path.realpath(os.path.expanduser(file)))
    if real.with_suffix(HEADER).is_file():
        real = real.with_suffix("")
    return real.parent, real.name, member if separator else None
