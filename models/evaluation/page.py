"""An evaluation as one HTML page that needs nothing else: its figures, and pictures drawn by matplotlib."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS
from ecgbatch.models.evaluation import metrics
from ecgbatch.models.evaluation.bootstrap import DIGITS, RESAMPLES, Estimate
from ecgbatch.models.evaluation.figures import METRICS, Evaluation, labels_of
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.metrics import Numbers, Probabilities
from ecgbatch.settings import EcgbatchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY, DARK = "#1f5f99", "#9aa5b1", "#243b53"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgbatch",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": DARK,
    "axes.labelcolor": DARK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
}

UNIT_SQUARE = {name: value for a in "xy" for name, value in ((f"{a}lim", (-0.02, 1.02)), (f"{a}ticks", (0, 0.5, 1)))}

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #243b53; background: #fff; max-width: 1120px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem }
p { margin: .3rem 0 } .notice { font-weight: 600; color: #9b2c2c } .small { color: #627d98; font-size: .85rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e4e9ee; white-space: nowrap }
th:first-child, td:first-child { text-align: left } td span { color: #627d98; font-size: .75rem; display: block }
svg { max-width: 100%; height: auto }
</style>
</head>
<body>
<h1>$title</h1>
<p class="notice">For research use only, never for diagnosis.</p>
<p>$summary</p>
<p class="small">$details</p>
<h2>Figures</h2>
<div class="wide">$figures</div>
<p class="small">Precision, recall and F1 are at the model's thresholds. In small print: 95 % intervals from $resamples
bootstrap resamples of the records; that of the calibration error leans upwards, as chance adds to the error.</p>
$pictures
<h2>By age and sex</h2>
<p class="small">Macro averages over the records of each group.</p>
<div class="wide">$groups</div>
</body>
</html>
""")


class Superclass(NamedTuple):
    """What one column of pictures is drawn from, (R,) each."""

    name: str
    labels: NDArray[np.int64]
    probabilities: Numbers
    found: NDArray[np.bool_]


def write_page(
    path: Path,
    about: Mapping[str, Any],
    evaluation: Evaluation,
    records: Sequence[LabelledRecord],
    probabilities: Probabilities,
) -> None:
    """Writes the page of an evaluation of these records, whose probabilities are (R, 5).

    `about` says what was evaluated: job, model, fingerprint, labels, fold, without_prediction. Raises EcgbatchError
    when matplotlib is missing or the file cannot be written.
    """
    fold = "" if about["fold"] is None else f"fold {about['fold']} of "
    page = PAGE.substitute(
        title=escape(f"{about['model']} on {fold}{about['labels']}"),
        summary=f"{evaluation.records:,} records, {about['without_prediction']:,} more without a prediction. "
        f"Exact match, all five superclasses right: {evaluation.exact_match}.",
        details=f"Job {about['job']}, model fingerprint {escape(about['fingerprint'])}",
        figures=_figures_table(evaluation),
        groups=_groups_table(evaluation),
        resamples=f"{RESAMPLES:,}",
        pictures="\n".join(_pictures(labels_of(records), probabilities.astype(np.float64), evaluation.thresholds)),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EcgbatchError(f"cannot write {path}: {error.strerror}") from None


def _pictures(labels: NDArray[np.int64], probabilities: Numbers, thresholds: Mapping[str, float]) -> Iterator[str]:
    """The sections that hold the pictures."""
    try:
        import matplotlib
    except ImportError:
        raise EcgbatchError("the page needs matplotlib: pip install 'ecgbatch[evaluation]'") from None
    found = probabilities >= [thresholds[name] for name in LABELS]
    columns = zip(LABELS, labels.T, probabilities.T, found.T, strict=True)
    superclasses = [Superclass(*column) for column in columns]
    with matplotlib.rc_context(STYLE):
        for title, caption, draw in (
            ("ROC", "The dot is the model's threshold, the dashed line is chance.", _draw_roc),
            ("Precision and recall", "The dot is the model's threshold, the dashed line is chance.", _draw_precision),
            (
                "Calibration",
                "Ten bins of equal width: their mean probability against their share of positives. The bars are their "
                "share of the records; on the dashed line probabilities would be shares.",
                _draw_calibration,
            ),
            ("Confusion", "Records at the model's threshold, and their share of the row.", _draw_confusion),
        ):
            yield _section(title, caption, _row_of(superclasses, draw))
        yield _section(
            "Superclasses together",
            "Of the records with the superclass of the row, the share that has that of the column too; "
            "on the diagonal, how many records have the superclass.",
            _together(labels == 1, found),
        )


def _section(title: str, caption: str, figure: "Figure") -> str:
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = svg.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return f'<h2>{escape(title)}</h2>\n<p class="small">{escape(caption)}</p>\n{drawn}'


def _row_of(superclasses: Sequence[Superclass], draw: "Callable[[Axes, Superclass], None]") -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.1), layout="constrained")
    for axes, superclass in zip(figure.subplots(1, len(superclasses)), superclasses, strict=True):
        axes.set_box_aspect(1)
        draw(axes, superclass)
        axes.label_outer()
    return figure


def _draw_roc(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, found = superclass
    _, positives, negatives = metrics.rank(labels, probabilities)
    at = metrics.confusion(labels, found)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axes.plot(_share(negatives), _share(positives), color=BLUE)
    axes.plot(at.false_positives / max(negatives[-1], 1), at.recall, "o", color=DARK)
    axes.set_title(_title(name, "AUC", metrics.roc_auc(labels, probabilities)))
    axes.set(xlabel="false positive rate", ylabel="recall", **UNIT_SQUARE)


def _draw_precision(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, found = superclass
    _, positives, negatives = metrics.rank(labels, probabilities)
    at = metrics.confusion(labels, found)
    axes.axhline(labels.mean(), color=GREY, linewidth=0.8, linestyle="--")
    precision = positives / (positives + negatives)
    axes.step(_share(positives), np.append(precision[0], precision), color=BLUE)
    axes.plot(at.recall, at.precision, "o", color=DARK)
    axes.set_title(_title(name, "AP", metrics.average_precision(labels, probabilities)))
    axes.set(xlabel="recall", ylabel="precision", **UNIT_SQUARE)


def _draw_calibration(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, _ = superclass
    records, probability, positives = metrics.calibration_bins(labels, probabilities)
    filled = records > 0
    centres = (np.arange(metrics.BINS) + 0.5) / metrics.BINS
    axes.bar(centres, records / records.sum(), width=0.9 / metrics.BINS, color="#dbe4ec")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    means, shares = probability[filled] / records[filled], positives[filled] / records[filled]
    axes.plot(means, shares, "o-", color=BLUE, markersize=4)
    axes.set_title(_title(name, "error", metrics.expected_calibration_error(labels, probabilities)))
    axes.set(xlabel="probability", ylabel="share of positives", **UNIT_SQUARE)


def _draw_confusion(axes: "Axes", superclass: Superclass) -> None:
    name, labels, _, found = superclass
    at = metrics.confusion(labels, found)
    cells = np.array([[at.true_negatives, at.false_positives], [at.false_negatives, at.true_positives]])
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    texts = [[f"{count:,.0f}\n{share:.0%}" for count, share in zip(*row)] for row in zip(cells, shares)]
    _heat_map(axes, shares, texts, ("no", "yes"))
    axes.set_title(name.upper())
    axes.set(xlabel="found", ylabel="labelled")


def _together(labelled: NDArray[np.bool_], found: NDArray[np.bool_]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, title, has in zip(figure.subplots(1, 2), ("labelled", "found"), (labelled, found), strict=True):
        both = has.T.astype(np.int64) @ has
        shares = both / np.maximum(both.diagonal()[:, np.newaxis], 1)
        texts = [[f"{share:.0%}" for share in row] for row in shares]
        for at, count in enumerate(both.diagonal()):
            texts[at][at] = f"{count:,}"
        np.fill_diagonal(shares, 0)
        _heat_map(axes, shares, texts, [name.upper() for name in LABELS])
        axes.set_title(title)
    return figure


def _heat_map(axes: "Axes", shares: Numbers, texts: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=2)  # pale enough for dark text
    for (row, column), _ in np.ndenumerate(shares):
        axes.text(column, row, texts[row][column], ha="center", va="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _title(name: str, what: str, value: Numbers) -> str:
    return f"{name.upper()}, {what} {value:.{DIGITS}f}" if np.isfinite(value) else name.upper()


def _share(running: Numbers) -> Numbers:
    """A running count as a share of its end, from 0 on; 0 where there is nothing to count."""
    return np.append(0.0, running / max(running[-1], 1))


def _figures_table(evaluation: Evaluation) -> str:
    rows = [
        [row.upper() if row in LABELS else row, evaluation.positives.get(row), evaluation.thresholds.get(row)]
        + [figures[metric] for metric in METRICS]
        for row, figures in evaluation.figures.items()
    ]
    return _table(["superclass", "records", "threshold", *METRICS], rows)


def _groups_table(evaluation: Evaluation) -> str:
    rows = [
        [f"{group.by} {group.name}", group.records, *(group.figures[metric] for metric in METRICS)]
        for group in evaluation.groups
    ]
    return _table(["group", "records", *METRICS], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _cell(value: Estimate | float | str | None) -> str:
    if isinstance(value, Estimate):
        interval = "" if value.low is None else f"<span>{value.low:.{DIGITS}f}–{value.high:.{DIGITS}f}</span>"
        return _cell(value.value) + interval
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    return "" if value is None else escape(f"{value:,}" if isinstance(value, int) else value)
