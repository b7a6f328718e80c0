"""What a job predicted for the records that have labels."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy.engine import Connection

from ecgbatch.db import reports
from ecgbatch.models.evaluation.labels import LabelledRecord, Labels
from ecgbatch.models.evaluation.metrics import Numbers
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.settings import EcgbatchError


@dataclass(frozen=True)
class Predictions:
    """A job's probabilities (R, K) of R labelled records, for the K classes that are labelled.

    `without_prediction` counts the labelled records that the job has not scored, `remaining` those of the job's
    `total` records that have not come to their end.
    """

    job: int
    model: Model
    records: list[LabelledRecord]
    probabilities: Numbers
    without_prediction: int
    total: int
    remaining: int


def model_of(connection: Connection, registry: Registry, job: int) -> Model:
    """Raises EcgbatchError when there is no such job, or its model is not here."""
    reports.progress(connection, job)
    return registry.by_fingerprint(reports.model_fingerprint(connection, job))


def predictions(connection: Connection, model: Model, job: int, labels: Labels) -> Predictions:
    """Of a job that is there, by its model. Raises EcgbatchError when it scored no labelled record."""
    [progress] = reports.progress(connection, job)
    labelled = {record.path for record in labels.records}
    found = {path: values for path, values in reports.probabilities(connection, job) if path in labelled}
    records = [record for record in labels.records if record.path in found]
    if not records:
        raise EcgbatchError(
            f"job {job} has predictions for none of the {len(labelled):,} records with labels: their paths "
            "must be those of the job's records (of PTB-XL those in the column filename_lr; an archive as it was run)"
        )
    columns = [model.labels.index(name) for name in labels.classes]
    probabilities = np.array([found[record.path] for record in records], np.float64)[:, columns]
    return Predictions(
        job, model, records, probabilities, len(labelled) - len(records), progress.total, progress.remaining
    )


def in_common(first: Predictions, second: Predictions) -> tuple[list[LabelledRecord], Numbers, Numbers]:
    """The records that both jobs have scored, and the probabilities of either. Raises EcgbatchError for none."""
    places = {record.path: at for at, record in enumerate(second.records)}
    both = [(at, places[record.path]) for at, record in enumerate(first.records) if record.path in places]
    if not both:
        raise EcgbatchError(f"jobs {first.job} and {second.job} have no labelled record in common")
    mine, theirs = (list(column) for column in zip(*both, strict=True))
    return [first.records[at] for at in mine], first.probabilities[mine], second.probabilities[theirs]
