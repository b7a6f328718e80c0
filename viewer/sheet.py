"""One record on one sheet: what it is and what the model says of it, above its leads on ECG paper."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ecgbatch.models.score_files import Score
from ecgbatch.models.weights.model import Model
from ecgbatch.records.recording import SAMPLING_RATE, Recording
from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer import paper as ecg_paper
from ecgbatch.viewer.paper import FIRST_SECOND, MM_PER_SECOND, WIDTH, Paper, lay_out
from ecgbatch.viewer.words import name_of, person

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("svg", "png", "pdf")
MARGIN, HEAD, FOOT = 8, 43, 9
"""Millimetres around the paper, above it and below it."""
MM_PER_INCH = 25.4
DOTS_PER_INCH = 200
NOTICE = "For research use only, never for diagnosis."
WARN, SOFT, MARK, FAINT = "#9b2c2c", "#52667a", "#1f5f99", "#dbe4ec"
LINE = 4.2
"""From one line of the head to the next."""
MOST_BARS = 6
"""Of probabilities, in the head."""


@dataclass(frozen=True)
class Sheet:
    """What is drawn: `signal` (T, 12) mV is what was scored, or what was recorded; `shown` says which.

    `notes` are lines of the head that say more.
    """

    signal: NDArray[np.float64]
    shown: str
    recording: Recording
    score: Score
    model: Model
    in_rows: bool = False
    notes: tuple[str, ...] = ()


More = Callable[["Axes", Paper, float, float], None]
"""Draws something more over the paper, whose lower left corner is at x, y."""


def kind_of(file: Path) -> str:
    """The kind of picture that a file's suffix asks for. Raises EcgbatchError for any other, or without matplotlib."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise EcgbatchError(f"{file} must end with .svg, .png or .pdf, which says how to draw it")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise EcgbatchError("pictures need matplotlib: pip install 'ecgbatch[plot]'") from None
    return kind


def draw(sheet: Sheet, file: BinaryIO, kind: str, more: More | None = None) -> None:
    """Draws the sheet at true scale: printed as it is, 25 mm are a second."""
    figure = _figure(sheet, more)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    figure.savefig(file, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")


def _figure(sheet: Sheet, more: More | None) -> "Figure":
    from matplotlib.figure import Figure

    laid_out = lay_out(sheet.signal, sheet.in_rows)
    width, height = WIDTH + 2 * MARGIN, FOOT + laid_out.height + HEAD
    figure = Figure(figsize=(width / MM_PER_INCH, height / MM_PER_INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(0, height))
    ecg_paper.draw(axes, laid_out, sheet.signal, MARGIN, FOOT)
    if more:
        more(axes, laid_out, MARGIN, FOOT)
    _draw_head(axes, sheet, height - 6)
    _draw_probabilities(axes, sheet, width - MARGIN, height - 6)
    _draw_foot(axes, laid_out, sheet.shown, width)
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure


def _draw_head(axes: "Axes", sheet: Sheet, top: float) -> None:
    score = sheet.score
    write(axes, MARGIN, top, shortened(score.path, 60), size=11, weight="bold")
    flags = wrap("flags: " + (", ".join(score.flags) or "none"), 95, max_lines=2)
    lines = [
        f"{person(score.age, score.sex)} · {sheet.recording.format}, {len(sheet.recording.signal) / SAMPLING_RATE:g} s"
        + (f" · {shortened(sheet.recording.device, 40)}" if sheet.recording.device else ""),
        *flags,
        f"model {sheet.model}, fingerprint {sheet.model.fingerprint[:16]}…",
        f"SHA-256 of the input {score.input_sha256}",
        *sheet.notes,
    ]
    for number, line in enumerate(lines):
        write(axes, MARGIN, top - 6.5 - LINE * number, line)


def _draw_probabilities(axes: "Axes", sheet: Sheet, right: float, top: float) -> None:
    """A bar for each class, with a tick at the model's threshold; those that reach it are in bold.

    Of more classes than there is room for, those of the highest probabilities.
    """
    from matplotlib.patches import Rectangle

    bar, width = right - 50, 38
    all_of_them = sheet.score.probabilities
    highest = sorted(all_of_them, key=all_of_them.__getitem__, reverse=True)[:MOST_BARS]
    shown = {label: probability for label, probability in all_of_them.items() if label in highest}
    for row, (label, probability) in enumerate(shown.items()):
        level, threshold = top - 3 - 5.6 * row, sheet.model.thresholds[label]
        weight = "bold" if label in sheet.score.superclasses else "normal"
        write(axes, bar - 2, level, name_of(label), ha="right", weight=weight)
        axes.add_patch(Rectangle((bar, level - 2.6), width, 2.8, color=FAINT, linewidth=0))
        axes.add_patch(Rectangle((bar, level - 2.6), width * probability, 2.8, color=MARK, linewidth=0))
        axes.plot([bar + width * threshold] * 2, [level - 3.2, level + 0.8], color=WARN, linewidth=1.1)
        write(axes, right, level, f"{probability:.3f}", ha="right", weight=weight)
    of_many = f"the {len(shown)} highest of {len(all_of_them)} " if len(shown) < len(all_of_them) else ""
    said = f"{of_many}probabilities; red: the model's threshold; bold: reached"
    write(axes, right, top - 3 - 5.6 * len(shown), said, ha="right", color=SOFT, size=6)


def _draw_foot(axes: "Axes", laid_out: Paper, shown: str, width: float) -> None:
    said = f"{MM_PER_SECOND} mm/s · {laid_out.gain:g} mm/mV · 1 mm and 5 mm grid · {shown}"
    write(axes, MARGIN + FIRST_SECOND, FOOT - 2.5, said)
    write(axes, width - MARGIN, FOOT - 2.5, NOTICE, ha="right", color=WARN, weight="bold")


def write(axes: "Axes", x: float, y: float, text: str, size: float = 7.5, **style: object) -> None:
    """Text as it is: what would be a formula to matplotlib, or no letter of its typeface, is shown too."""
    axes.text(x, y, drawable(text), fontsize=size, va="top", parse_math=False, **style)  # type: ignore[arg-type]


def drawable(text: str) -> str:
    r"""The text on one line, in letters that the typeface has; others come out as `\n`, `\u4e2d`."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    known = [c if c.isprintable() and font.get_char_index(ord(c)) else ascii(c)[1:-1] for c in text]
    return "".join(known)


def shortened(text: str, longest: int) -> str:
    """A long text without its middle: a file's name is told by its ends."""
    text = drawable(text)
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[-half:]}"
