"""Draws over the paper what a score hangs on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgbatch.models.config import meaning_of
from ecgbatch.records.leads import LEADS
from ecgbatch.viewer.occlusion import PIECE_SECONDS, Occlusion
from ecgbatch.viewer.paper import LABELS_LIE, MM_PER_SECOND, Paper
from ecgbatch.viewer.sheet import More

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOR, AGAINST = "#2f7fd1", "#e08a1e"
DARKEST = 0.6


Explained = tuple[Occlusion, str]
"""What was found, and the class that it is shown for."""


class Shade(NamedTuple):
    """A half second of a lead: where it begins on the paper, from its lower left corner, in millimetres."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float


def shades(occlusion: Occlusion, label: str, paper: Paper) -> Iterator[Shade]:
    """Each half second of leads in rows, by the change of one class."""
    of_label = occlusion.labels.index(label)
    most = float(np.abs(occlusion.by_piece[:, :, of_label]).max()) or 1.0
    for strip in paper.strips:
        for piece, change in enumerate(occlusion.by_piece[LEADS.index(strip.lead), :, of_label].tolist()):
            start, stop = piece * PIECE_SECONDS, min((piece + 1) * PIECE_SECONDS, strip.stop)
            corner = (strip.x + start * MM_PER_SECOND, strip.y - paper.pitch / 2)
            size = ((stop - start) * MM_PER_SECOND, paper.pitch)
            yield Shade(*corner, *size, FOR if change < 0 else AGAINST, DARKEST * abs(change) / most)


def change_of(occlusion: Occlusion, label: str, lead: str) -> str:
    """What silence of all of a lead does to a class, as it is written beside the lead."""
    change = round(float(occlusion.by_lead[LEADS.index(lead), occlusion.labels.index(label)]), 3)
    return f"{change:+.3f}" if change else "0.000"


def shade(occlusion: Occlusion, label: str) -> More:
    """Shades each half second by the change of one class, and writes beside each lead its change."""

    def draw(axes: "Axes", paper: Paper, x: float, y: float) -> None:
        from matplotlib.collections import PatchCollection
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Rectangle

        found = list(shades(occlusion, label, paper))
        patches = [Rectangle((x + each.x, y + each.y), each.width, each.height) for each in found]
        colours = [to_rgba(each.colour, each.opacity) for each in found]
        axes.add_collection(PatchCollection(patches, facecolors=colours, linewidths=0, zorder=2), autolim=False)
        for strip in paper.strips:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            said, top = change_of(occlusion, label, strip.lead), y + strip.y + paper.pitch / 2 - 0.7
            axes.text(x + strip.x + 9, top, said, fontsize=7, va="top", bbox=box, zorder=LABELS_LIE)

    return draw


def legend(occlusion: Occlusion, label: str) -> tuple[str, str]:
    """What the shading means, in two lines."""
    of_label = occlusion.labels.index(label)
    most = float(np.abs(occlusion.by_piece[:, :, of_label]).max())
    named = f"{meaning_of(label)} ({occlusion.probabilities[of_label]:.3f})"
    return (
        f"Shaded: what {named} loses (blue) or gains (orange) when that half second is silenced; darkest: {most:.2g}.",
        "Beside each lead: its change when all of it is silenced. No cause and no sum: leads repeat each other.",
    )
