"""Twelve leads on ECG paper: the grid, where each lead stands, and its trace. All lengths are millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLING_RATE, SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MM_PER_SECOND = 25
MM_PER_MILLIVOLT = 10
COLUMNS = 4
COLUMN_SECONDS = SECONDS / COLUMNS
RHYTHM_LEAD = "II"
WIDTH = MM_PER_SECOND * SECONDS + 20
"""Of the paper: ten seconds, and before them the calibration mark."""
FIRST_SECOND = 15
"""Where the traces begin on the paper."""
INK, FINE, BOLD = "#111111", "#f6d5d5", "#e79b9b"
SMALL = 6
GRID_LIES, LABELS_LIE, TRACES_LIE = 1, 2.5, 3
"""What lies on what: a wave of the row above must be seen through the name of a lead."""


@dataclass(frozen=True)
class Strip:
    """A piece of a lead: from which second to which, and where it begins on the paper, from its lower left corner."""

    lead: str
    start: float
    stop: float
    x: float
    y: float


@dataclass(frozen=True)
class Paper:
    """Strips on paper of a height, rows `pitch` apart, at so many millimetres per millivolt."""

    strips: tuple[Strip, ...]
    height: float
    pitch: float
    gain: float


def lay_out(signal: NDArray[np.float64], in_rows: bool) -> Paper:
    """Where the leads of (T, 12) mV stand: one a row, or in four columns of 2.5 s with a rhythm strip below.

    The columns follow each other in time; of a record shorter than ten seconds their times overlap.
    """
    seconds = len(signal) / SAMPLING_RATE
    pitch = 20.0 if in_rows else 30.0
    rows = len(LEADS) if in_rows else 4
    height = rows * pitch + 10
    lines = [height - 5 - pitch * (row + 0.5) for row in range(rows)]
    if in_rows:
        strips = [Strip(lead, 0, seconds, FIRST_SECOND, y) for lead, y in zip(LEADS, lines, strict=True)]
    else:
        shown = min(COLUMN_SECONDS, seconds)
        starts = [column * (seconds - shown) / (COLUMNS - 1) for column in range(COLUMNS)]
        across = [FIRST_SECOND + column * COLUMN_SECONDS * MM_PER_SECOND for column in range(COLUMNS)]
        strips = [
            Strip(lead, starts[at // 3], starts[at // 3] + shown, across[at // 3], lines[at % 3])
            for at, lead in enumerate(LEADS)
        ]
        strips.append(Strip(RHYTHM_LEAD, 0, seconds, FIRST_SECOND, lines[-1]))
    return Paper(tuple(strips), height, pitch, _gain(signal, pitch))


def _gain(signal: NDArray[np.float64], pitch: float) -> float:
    """10 mm/mV; half of it, a quarter and so on for waves that would leave their row by more than half of it."""
    highest = float(np.abs(signal - np.median(signal, axis=0)).max(initial=0))
    too_large = highest * MM_PER_MILLIVOLT / pitch
    return MM_PER_MILLIVOLT / 2 ** max(0, ceil(log2(too_large))) if too_large > 0 else MM_PER_MILLIVOLT


def draw(axes: "Axes", paper: Paper, signal: NDArray[np.float64], x: float, y: float) -> None:
    """Draws (T, 12) mV; the paper's lower left corner is at x, y of axes in millimetres."""
    _draw_grid(axes, x, y, WIDTH, paper.height)
    for strip in paper.strips:
        _draw_strip(axes, paper, strip, signal, x, y)
    for level in sorted({strip.y for strip in paper.strips}):
        _draw_calibration(axes, paper, x + FIRST_SECOND - 10, y + level)


def trace(paper: Paper, strip: Strip, signal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A strip's trace on the paper, (N,) each; a constant distance of the lead from zero is left out."""
    first, last = round(strip.start * SAMPLING_RATE), round(strip.stop * SAMPLING_RATE)
    lead = signal[:, LEADS.index(strip.lead)]
    across = strip.x + np.arange(last - first) / SAMPLING_RATE * MM_PER_SECOND
    return across, strip.y + (lead[first:last] - np.median(lead)) * paper.gain


def _draw_grid(axes: "Axes", x: float, y: float, width: float, height: float) -> None:
    for distance, colour, thick in ((1, FINE, 0.25), (5, BOLD, 0.6)):
        lines = [[(x + at, y), (x + at, y + height)] for at in np.arange(0, width + 0.1, distance)]
        lines += [[(x, y + at), (x + width, y + at)] for at in np.arange(0, height + 0.1, distance)]
        _draw_lines(axes, lines, colour, thick)


def _draw_lines(axes: "Axes", lines: Sequence[Sequence[tuple[float, float]]], colour: str, thick: float) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, colors=colour, linewidths=thick, zorder=GRID_LIES), autolim=False)


def _draw_strip(axes: "Axes", paper: Paper, strip: Strip, signal: NDArray[np.float64], x: float, y: float) -> None:
    seconds, up = trace(paper, strip, signal)
    axes.plot(x + seconds, y + up, color=INK, linewidth=0.7, solid_joinstyle="round", zorder=TRACES_LIE)
    top = y + strip.y + paper.pitch / 2
    axes.plot([x + strip.x] * 2, [top - 2.5, top - 0.5], color=INK, linewidth=0.7, zorder=TRACES_LIE)
    said = strip.lead if strip.start == 0 else f"{strip.lead}  from {strip.start:.1f} s"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    across, size = x + strip.x + 1, SMALL + 1
    axes.text(across, top - 0.7, said, fontsize=size, va="top", weight="bold", bbox=box, zorder=LABELS_LIE)


def _draw_calibration(axes: "Axes", paper: Paper, x: float, y: float) -> None:
    """The mark of 10 mm and 0.2 s: 1 mV at the usual gain."""
    across, up = [0, 1.5, 1.5, 6.5, 6.5, 8], [0, 0, MM_PER_MILLIVOLT, MM_PER_MILLIVOLT, 0, 0]
    axes.plot([x + each for each in across], [y + each for each in up], color=INK, linewidth=0.7, zorder=TRACES_LIE)
    millivolts = MM_PER_MILLIVOLT / paper.gain
    axes.text(x + 4, y - 0.8, f"{millivolts:g} mV", fontsize=SMALL - 1, ha="center", va="top", zorder=LABELS_LIE)
