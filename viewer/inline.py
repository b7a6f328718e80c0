"""Pictures as SVG to stand in a page: small, without a library, in the colours of the page."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from ecgbatch.viewer.paper import MM_PER_SECOND, WIDTH, lay_out, trace
from ecgbatch.viewer.shading import Explained, Shade, change_of, shades

GRID = """\
<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>
<pattern id="mm" width="1" height="1" patternUnits="userSpaceOnUse">
<path d="M1 0H0V1" style="fill:none;stroke:var(--fine);stroke-width:.1"/></pattern>
<pattern id="mm5" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" fill="url(#mm)"/>
<path d="M5 0H0V5" style="fill:none;stroke:var(--bold);stroke-width:.25"/></pattern></defs></svg>
"""
"""Stands in the page once, before its first ECG."""

STYLE = """\
:root { --fine: #f6d5d5; --bold: #e79b9b }
@media (prefers-color-scheme: dark) { :root { --fine: #35282b; --bold: #5b3a40 } }
.ecg { display: block; width: 100%; min-width: 760px }
.ecg polyline, .ecg path { fill: none; stroke: var(--ink); stroke-width: .3 }
.ecg text { font: bold 3.2px sans-serif; fill: var(--ink) }
"""
"""Of a page with ECGs, after the style of all pages."""


def ecg(signal: NDArray[np.float64], title: str, in_rows: bool = False, explained: Explained | None = None) -> str:
    """Twelve leads of (T, 12) mV on ECG paper, 3x4 with a rhythm strip or one a row, and what the score hangs on."""
    paper = lay_out(signal, in_rows)
    drawn = [] if explained is None else [_shade(shade, paper.height) for shade in shades(*explained, paper)]
    for strip in paper.strips:
        top = paper.height - strip.y - paper.pitch / 2 + 4
        said = strip.lead if explained is None else f"{strip.lead} {change_of(*explained, strip.lead)}"
        drawn.append(f'<text x="{strip.x + 1:g}" y="{top:g}">{said}</text>')
        across, up = trace(paper, strip, signal)
        points = " ".join(f"{x:.1f},{paper.height - y:.1f}" for x, y in zip(across, up, strict=True))
        drawn.append(f'<polyline points="{points}"/>')
    levels = sorted({strip.y for strip in paper.strips})
    marks = "".join(f'<path d="M5 {paper.height - y:g}h1.5v-10h5v10h1.5"/>' for y in levels)
    said = f"{MM_PER_SECOND} mm/s, {paper.gain:g} mm/mV"
    return (
        f'<svg class="ecg" role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {paper.height:g}">'
        f'<rect width="{WIDTH}" height="{paper.height:g}" fill="url(#mm5)"/>{marks}{"".join(drawn)}'
        f'<text x="15" y="{paper.height - 1.5:g}">{said}</text></svg>'
    )


def _shade(shade: Shade, height: float) -> str:
    return (
        f'<rect x="{shade.x:g}" y="{height - shade.y - shade.height:g}" width="{shade.width:g}" '
        f'height="{shade.height:g}" fill="{shade.colour}" opacity="{shade.opacity:.2f}"/>'
    )


def bars(title: str, counts: Sequence[int], threshold: float) -> str:
    """A distribution over 0 to 1, with a line at a threshold."""
    said = [f"{at / len(counts):.2f}: {count:,}" for at, count in enumerate(counts)]
    line = f'<path d="M{100 * threshold:.1f} 0V40" style="stroke:var(--warn)"/>'
    ends = '<text x="0" y="46">0</text><text x="100" y="46" text-anchor="end">1</text>'
    return _bars(title, counts, said, (100, 47), line + ends)


def course(title: str, values: Sequence[float], said: Sequence[str]) -> str:
    """Values over time, wide and low, and what is said of each."""
    return _bars(title, values, said, (400, 41), "")


def _bars(title: str, values: Sequence[float], said: Sequence[str], size: tuple[int, int], more: str) -> str:
    across, down = size
    width, most = across / len(values), max(*values, 1e-9)
    drawn = "".join(
        f'<rect x="{at * width + 0.3:.2f}" y="{40 - 38 * value / most:.2f}" width="{width - 0.6:.2f}" '
        f'height="{38 * value / most:.2f}"><title>{escape(meaning)}</title></rect>'
        for at, (value, meaning) in enumerate(zip(values, said, strict=True))
    )
    line = f'<path d="M0 40H{across}" style="stroke:var(--line)"/>'
    label = escape(title)
    return f'<svg class="bars" role="img" aria-label="{label}" viewBox="0 0 {across} {down}">{drawn}{line}{more}</svg>'
