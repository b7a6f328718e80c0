"""An evaluation as one HTML page that needs nothing else: the answer first, then its figures and pictures."""

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from ecgbatch import pages
from ecgbatch.models.config import meaning_of
from ecgbatch.models.evaluation import pictures
from ecgbatch.models.evaluation.bootstrap import RESAMPLES, Estimate
from ecgbatch.models.evaluation.figures import METRICS, Evaluation, decided, labels_of
from ecgbatch.models.evaluation.predictions import Predictions
from ecgbatch.models.weights.model import Model
from ecgbatch.settings import EcgbatchError

VALIDATION_FOLD = 9
AVERAGES = {"macro": "mean of the classes (macro)", "micro": "all decisions pooled (micro)"}
HEADS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "calibration_error": "calibration error",
}

PAGE = Template("""\
$head<h1>$title</h1>
<p class="notice">For research use only, never for diagnosis.</p>
<div class="tiles">$tiles</div>
<div class="panels">$answer</div>
<p>$caveat</p>
<h2>Figures</h2>
<div class="wide">$figures</div>
<p class="small">Precision, recall and F1 are at the model's thresholds. In small print: 95 % intervals from $resamples
bootstrap resamples of the records; that of the calibration error is freed of what chance adds to it in a resample.</p>
<h2>By age and sex</h2>
<p class="small">Macro averages over the records of each group, with their 95 % intervals.</p>
<div class="panels">$group_pictures</div>
<div class="wide">$groups</div>
$sections
<h2>Where this comes from</h2>
<div class="wide">$provenance</div>
</body>
</html>
""")


def write_page(path: Path, about: Mapping[str, Any], evaluation: Evaluation, predictions: Predictions) -> None:
    """Writes the page of an evaluation of these predictions.

    `about` says what was evaluated: job, model, fingerprint, labels, labels_sha256, fold, without_prediction. Raises
    EcgbatchError when matplotlib is missing or the file cannot be written.
    """
    title = f"{about['model']} on {_part(about['fold'])}{about['labels']}"
    page = PAGE.substitute(
        head=pages.head(title),
        title=escape(title),
        tiles=_tiles(evaluation, about["without_prediction"]),
        answer="".join(_answer(evaluation)),
        caveat=escape(_caveat(predictions.model, about["fold"])),
        figures=_figures_table(evaluation),
        resamples=f"{RESAMPLES:,}",
        group_pictures="".join(_group_pictures(evaluation)),
        groups=_groups_table(evaluation),
        sections="\n".join(_sections(evaluation, predictions)),
        provenance=_provenance(about),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EcgbatchError(f"cannot write {path}: {error.strerror}") from None


def _part(fold: int | None) -> str:
    return "" if fold is None else f"fold {fold} of "


def _tiles(evaluation: Evaluation, without_prediction: int) -> str:
    macro = evaluation.figures["macro"]
    tiles = [
        ("macro AUC", _number(macro["auc"].value), _interval(macro["auc"])),
        ("macro F1", _number(macro["f1"].value), _interval(macro["f1"])),
        ("all classes right", _number(evaluation.exact_match.value), _interval(evaluation.exact_match)),
        ("records", f"{evaluation.records:,}", f"{without_prediction:,} more without a prediction"),
    ]
    return "".join(
        f'<div>{escape(name)}<b>{escape(value)}</b><span class="small">{escape(more)}</span></div>'
        for name, value, more in tiles
    )


def _named(row: str) -> str:
    return AVERAGES.get(row) or meaning_of(row)


def _answer(evaluation: Evaluation) -> list[str]:
    rows = {_named(row): figures for row, figures in evaluation.figures.items()}
    return [
        pictures.intervals(f"{HEADS[metric]} with its 95 % interval", {row: rows[row][metric] for row in rows})
        for metric in ("auc", "f1")
    ]


def _caveat(model: Model, fold: int | None) -> str:
    """What the figures are worth, by what the model's description says of its training."""
    if model.description.get("tuned") is not None:
        return "The model was tuned on a table of labels: of records that stand in it, its figures are too good."
    if model.description.get("training") is None:
        return "Whether the model has seen these records in its training, only who trained it can say."
    if fold is None:
        return "The model was trained on folds 1 to 8 and chosen by fold 9: of these records its figures are too good."
    if fold < VALIDATION_FOLD:
        return f"The model was trained on fold {fold}: its figures are far too good."
    if fold == VALIDATION_FOLD:
        return "Fold 9 chose the model's epoch and thresholds: its figures flatter the model a little."
    return f"The model has not seen fold {fold} in its training."


def _group_pictures(evaluation: Evaluation) -> list[str]:
    groups = {f"{group.by} {group.name}": group.figures for group in evaluation.groups}
    return [
        pictures.intervals(f"macro {HEADS[metric]}", {name: figures[metric] for name, figures in groups.items()})
        for metric in ("auc", "f1")
    ]


def _sections(evaluation: Evaluation, predictions: Predictions) -> list[str]:
    names, probabilities = list(evaluation.thresholds), predictions.probabilities
    labels, found = labels_of(predictions.records), decided(probabilities, names, evaluation.thresholds)
    columns = zip(map(meaning_of, names), labels.T, probabilities.T, found.T, strict=True)
    superclasses = [pictures.Superclass(*column) for column in columns]
    return [
        f'<h2>{escape(title)}</h2>\n<p class="small">{escape(caption)}</p>\n<div class="panels">{"".join(panels)}</div>'
        for title, caption, panels in pictures.of_superclasses(superclasses)
    ]


def _provenance(about: Mapping[str, Any]) -> str:
    rows = [
        ("job", str(about["job"])),
        ("model", about["model"]),
        ("fingerprint of the model", about["fingerprint"]),
        ("labels", about["labels"]),
        ("SHA-256 of the labels", about["labels_sha256"]),
        ("ecgbatch", version("ecgbatch")),
        ("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
    ]
    return pages.facts(rows)


def _figures_table(evaluation: Evaluation) -> str:
    rows = [
        [_named(row), evaluation.positives.get(row), evaluation.thresholds.get(row)]
        + [figures[metric] for metric in METRICS]
        for row, figures in evaluation.figures.items()
    ]
    return pages.table(["class", "records", "threshold", *HEADS.values()], rows, _cell)


def _groups_table(evaluation: Evaluation) -> str:
    rows = [
        [f"{group.by} {group.name}", group.records, *(group.figures[metric] for metric in METRICS)]
        for group in evaluation.groups
    ]
    return pages.table(["group", "records", *HEADS.values()], rows, _cell)


def _cell(value: Estimate | float | str | None) -> str:
    if isinstance(value, Estimate):
        interval = _interval(value)
        return _number(value.value) + (f"<span>{interval}</span>" if interval else "")
    if isinstance(value, float):
        return _number(value)
    return "" if value is None else escape(f"{value:,}" if isinstance(value, int) else value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f}–{estimate.high:.3f}"
