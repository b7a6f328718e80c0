"""Shows how far something is: a bar that fits the terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ecgbatch.db.reports import Progress
from ecgbatch.printing import duration, printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINE_EVERY = 10.0
"""Seconds between lines where the output is no terminal."""
SHORTEST_BAR, LONGEST_BAR = 8, 40
WINDOW_SECONDS = 30.0
"""The pace is that of so many seconds."""
TOLD_AFTER = 5.0
"""Seconds of work before a pace can be told: workers do not start all at once."""


class Line(NamedTuple):
    """One line: facts, the most important first, and with `share` (0 to 1) a bar."""

    label: str
    facts: Sequence[str]
    share: float | None = None


class ProgressLine:
    """On standard error: bars with a few facts, or lines of them every LINE_EVERY seconds and at the end."""

    def __init__(self) -> None:
        self._live = _live() if sys.stderr.isatty() else None
        self._printed_at = time.monotonic()
        self._unprinted: list[str] = []

    def show(self, label: str, facts: Sequence[str], share: float | None = None) -> None:
        """Shows one line. A narrow terminal shows fewer of its facts."""
        self.show_all([Line(label, facts, share)])

    def show_all(self, lines: Sequence[Line]) -> None:
        """Shows several lines."""
        if self._live is not None:
            from rich.console import Group

            width = self._live.console.width
            self._live.start()
            self._live.update(Group(*(_bar(*line, width) for line in lines)), refresh=True)
            return
        self._unprinted = [f"{line.label}: {', '.join(line.facts)}" for line in lines]
        if time.monotonic() - self._printed_at > LINE_EVERY:
            self._print()

    def close(self) -> None:
        """Ends the lines, so that what follows starts on its own."""
        if self._live is not None:
            self._live.stop()
        self._print()

    def _print(self) -> None:
        for line in self._unprinted:
            print(printable(line, sys.stderr), file=sys.stderr, flush=True)
        self._unprinted, self._printed_at = [], time.monotonic()


def _live() -> "Live | None":
    """What rewrites lines of the terminal; None where it cannot be rewritten."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    return None if console.is_dumb_terminal else Live(console=console, auto_refresh=False)


def _bar(label: str, facts: Sequence[str], share: float | None, width: int) -> "Table":
    """One line of at most `width` letters: as many facts, from the first, as leave room for a bar."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    room = width - len(label) - (0 if share is None else SHORTEST_BAR) - 3
    shown = ""
    for fact in facts:
        longer = f"{shown}, {fact}" if shown else fact
        if len(longer) > room:
            break
        shown = longer
    if share is None and not shown:
        shown = facts[0]  # cut where the terminal ends
    line = Table.grid(padding=(0, 1, 0, 0))
    text = [Text(printable(part, sys.stderr), no_wrap=True, overflow="ellipsis") for part in (label, shown)]
    if share is None:
        line.add_row(*text)
    else:
        length = min(LONGEST_BAR, width - len(label) - len(shown) - 3)
        line.add_row(text[0], ProgressBar(total=1.0, completed=share, width=max(length, 1)), text[1])
    return line


class Pace:
    """Records per second of the last half minute: what the time left is reckoned from.

    The clock starts with the first record that is done, not while workers are still starting.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def update(self, done: int, now: float) -> float | None:
        """The pace at `now` (seconds), None while it cannot be told."""
        if not self._seen or (len(self._seen) == 1 and done == self._seen[0][1]):
            self._seen = [(now, done)]
            return None
        self._seen = [(at, n) for at, n in self._seen if now - at <= WINDOW_SECONDS] + [(now, done)]
        first_at, first = self._seen[0]
        return (done - first) / (now - first_at) if done > first and now - first_at >= TOLD_AFTER else None


def facts_of(progress: Progress, pace: float | None) -> list[str]:
    """What there is to say of a job, the most important first."""
    done = progress.total - progress.remaining
    facts = [f"{share_of(progress):.0%}"]
    if pace is not None and not progress.ended:
        facts.append(f"{duration(progress.remaining / pace)} left")
    facts.append(f"{done:,} of {progress.total:,}")
    if progress.failed:
        facts.append(f"{progress.failed:,} failed")
    if pace is not None and not progress.ended:
        facts.append(f"{pace:,.0f} records/s")
    return facts


def share_of(progress: Progress) -> float:
    """The share of a job's records that have their end."""
    return 1 - progress.remaining / progress.total if progress.total else 1.0
