"""Draws over the paper what a score hangs on."""

from typing import TYPE_CHECKING

import numpy as np

from ecgbatch.models.config import LABELS, MEANINGS
from ecgbatch.records.leads import LEADS
from ecgbatch.viewer.occlusion import PIECE_SECONDS, Occlusion
from ecgbatch.viewer.paper import MM_PER_SECOND, Paper
from ecgbatch.viewer.sheet import More

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOR, AGAINST = "#2f7fd1", "#e08a1e"
DARKEST = 0.6


def shade(occlusion: Occlusion, label: str) -> More:
    """Shades each half second by the change of one superclass, and writes beside each lead its change."""

    def draw(axes: "Axes", paper: Paper, x: float, y: float) -> None:
        from matplotlib.patches import Rectangle

        of_label = LABELS.index(label)
        most = float(np.abs(occlusion.by_piece[:, :, of_label]).max()) or 1.0
        for strip in paper.strips:
            lead = LEADS.index(strip.lead)
            for piece, change in enumerate(occlusion.by_piece[lead, :, of_label].tolist()):
                start, stop = piece * PIECE_SECONDS, min((piece + 1) * PIECE_SECONDS, strip.stop)
                corner = (x + strip.x + start * MM_PER_SECOND, y + strip.y - paper.pitch / 2)
                size = ((stop - start) * MM_PER_SECOND, paper.pitch)
                colour = FOR if change < 0 else AGAINST
                shown = DARKEST * abs(change) / most
                axes.add_patch(Rectangle(corner, *size, color=colour, alpha=shown, linewidth=0, zorder=2))
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            said, top = f"{occlusion.by_lead[lead, of_label]:+.3f}", y + strip.y + paper.pitch / 2 - 0.7
            axes.text(x + strip.x + 9, top, said, fontsize=7, va="top", bbox=box, zorder=4)

    return draw


def legend(occlusion: Occlusion, label: str) -> tuple[str, str]:
    """What the shading means, in two lines."""
    of_label = LABELS.index(label)
    most = float(np.abs(occlusion.by_piece[:, :, of_label]).max())
    named = f"{MEANINGS[label]} ({occlusion.probabilities[of_label]:.3f})"
    return (
        f"Shaded: what {named} loses (blue) or gains (orange) when that half second is silenced; darkest: {most:.3f}.",
        "Beside each lead: its change when all of it is silenced. No cause and no sum: leads repeat each other.",
    )
