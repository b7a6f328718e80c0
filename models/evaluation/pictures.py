"""The pictures of an evaluation, drawn by matplotlib as SVG in the colours of the page that they stand in."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.evaluation import metrics
from ecgbatch.models.evaluation.bootstrap import Estimate
from ecgbatch.models.evaluation.metrics import Numbers
from ecgbatch.settings import EcgbatchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MARK, LINE, FAINT = "#243b53", "#1f5f99", "#9aa5b1", "#dbe4ec"
VARIABLES = {INK: "var(--ink)", MARK: "var(--mark)", LINE: "var(--line)", FAINT: "var(--faint)"}
"""The colours as matplotlib writes them, and what the page calls them, by day and by night."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgbatch",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
}
UNIT_SQUARE = {name: value for a in "xy" for name, value in ((f"{a}lim", (-0.02, 1.02)), (f"{a}ticks", (0, 0.5, 1)))}
PANEL = (2.7, 2.9)
"""Inches of one panel: two stand side by side on a telephone held sideways, one upright."""


class Superclass(NamedTuple):
    """What one panel is drawn from, (R,) each."""

    name: str
    labels: NDArray[np.int64]
    probabilities: Numbers
    found: NDArray[np.bool_]


Draw = Callable[["Axes", Superclass], None]


def of_superclasses(superclasses: Sequence[Superclass]) -> Iterator[tuple[str, str, list[str]]]:
    """Title, caption and panels of each section of pictures."""
    panels: tuple[tuple[str, str, Draw], ...] = (
        ("ROC", "The dot is the model's threshold, the dashed line is chance.", _draw_roc),
        ("Precision and recall", "The dot is the model's threshold, the dashed line is chance.", _draw_precision),
        (
            "Calibration",
            "Ten bins of equal width: their mean probability against their share of positives. The bars are their "
            "share of the records; on the dashed line probabilities would be shares.",
            _draw_calibration,
        ),
        ("Confusion", "Records at the model's threshold, and their share of the row.", _draw_confusion),
    )
    for title, caption, draw in panels:
        yield title, caption, [_panel(f"{title}, {each.name}", draw, each) for each in superclasses]
    names = [each.name for each in superclasses]
    yield (
        "Superclasses together",
        "Of the records with the superclass of the row, the share that has that of the column too; "
        "on the diagonal, how many records have the superclass.",
        [
            _together("labelled", names, np.stack([each.labels == 1 for each in superclasses], axis=1)),
            _together("found", names, np.stack([each.found for each in superclasses], axis=1)),
        ],
    )


def intervals(title: str, estimates: Mapping[str, Estimate]) -> str:
    """Each figure as a dot with its interval, one below the other; figures that cannot be told are left out."""
    told = {name: np.array(estimate, np.float64) for name, estimate in estimates.items() if estimate.value is not None}

    def draw(axes: "Axes", _: None) -> None:
        for at, (value, low, high) in enumerate(told.values()):
            axes.plot([low, high], [at, at], color=MARK, solid_capstyle="round")
            axes.plot([value], [at], "o", color=INK, markersize=4)
        axes.set_yticks(range(len(told)), list(told))
        axes.set_ylim(len(told) - 0.5, -0.5)
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(title, loc="left")

    return _drawn(title, draw, None, (4.4, 0.75 + 0.26 * max(len(told), 1)))


def _panel(title: str, draw: Draw, superclass: Superclass) -> str:
    def square(axes: "Axes", superclass: Superclass) -> None:
        axes.set_box_aspect(1)
        draw(axes, superclass)

    return _drawn(title, square, superclass, PANEL)


def _drawn(title: str, draw: Callable[["Axes", Any], None], content: Any, size: tuple[float, float]) -> str:
    """One picture as SVG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise EcgbatchError("the page needs matplotlib: pip install 'ecgbatch[evaluation]'") from None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), content)
        return _svg(title, figure)


def _svg(title: str, figure: "Figure") -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return drawn


def _draw_roc(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, found = superclass
    _, positives, negatives = metrics.rank(labels, probabilities)
    at = metrics.confusion(labels, found)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=0.8, linestyle="--")
    axes.plot(_share(negatives), _share(positives), color=MARK)
    axes.plot(at.false_positives / max(negatives[-1], 1), at.recall, "o", color=INK)
    axes.set_title(_title(name, "AUC", metrics.roc_auc(labels, probabilities)))
    axes.set(xlabel="false positive rate", ylabel="recall", **UNIT_SQUARE)


def _draw_precision(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, found = superclass
    _, positives, negatives = metrics.rank(labels, probabilities)
    at = metrics.confusion(labels, found)
    axes.axhline(labels.mean(), color=LINE, linewidth=0.8, linestyle="--")
    precision = positives / (positives + negatives)
    axes.step(_share(positives), np.append(precision[0], precision), color=MARK)
    axes.plot(at.recall, at.precision, "o", color=INK)
    axes.set_title(_title(name, "AP", metrics.average_precision(labels, probabilities)))
    axes.set(xlabel="recall", ylabel="precision", **UNIT_SQUARE)


def _draw_calibration(axes: "Axes", superclass: Superclass) -> None:
    name, labels, probabilities, _ = superclass
    records, probability, positives = metrics.calibration_bins(labels, probabilities)
    filled = records > 0
    centres = (np.arange(metrics.BINS) + 0.5) / metrics.BINS
    axes.bar(centres, records / records.sum(), width=0.9 / metrics.BINS, color=FAINT)
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=0.8, linestyle="--")
    means, shares = probability[filled] / records[filled], positives[filled] / records[filled]
    axes.plot(means, shares, "o-", color=MARK, markersize=4)
    axes.set_title(_title(name, "error", metrics.expected_calibration_error(labels, probabilities)))
    axes.set(xlabel="probability", ylabel="share of positives", **UNIT_SQUARE)


def _draw_confusion(axes: "Axes", superclass: Superclass) -> None:
    name, labels, _, found = superclass
    at = metrics.confusion(labels, found)
    cells = np.array([[at.true_negatives, at.false_positives], [at.false_negatives, at.true_positives]])
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    texts = [[f"{count:,.0f}\n{share:.0%}" for count, share in zip(*row)] for row in zip(cells, shares)]
    _heat_map(axes, shares, texts, ("no", "yes"))
    axes.set_title(name)
    axes.set(xlabel="found", ylabel="labelled")


def _together(title: str, names: Sequence[str], has: NDArray[np.bool_]) -> str:
    both = has.T.astype(np.int64) @ has
    shares = both / np.maximum(both.diagonal()[:, np.newaxis], 1)
    texts = [[f"{share:.0%}" for share in row] for row in shares]
    for at, count in enumerate(both.diagonal()):
        texts[at][at] = f"{count:,}"
    np.fill_diagonal(shares, 0)

    def draw(axes: "Axes", _: None) -> None:
        _heat_map(axes, shares, texts, [name.replace(" ", "\n") for name in names])
        axes.tick_params(axis="x", rotation=60)
        axes.set_title(title)

    return _drawn(f"Superclasses together, {title}", draw, None, (4.4, 4.2))


def _heat_map(axes: "Axes", shares: Numbers, texts: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Fields the fuller the greater their share, pale enough for text on them by day and by night."""
    from matplotlib.patches import Rectangle

    for (row, column), share in np.ndenumerate(shares):
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=MARK, alpha=0.06 + 0.5 * share))
        axes.text(column, row, texts[row][column], ha="center", va="center")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _title(name: str, what: str, value: Numbers) -> str:
    return f"{name}\n{what} {value:.3f}" if np.isfinite(value) else name


def _share(running: Numbers) -> Numbers:
    """A running count as a share of its end, from 0 on; 0 where there is nothing to count."""
    return np.append(0.0, running / max(running[-1], 1))
