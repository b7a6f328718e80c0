"""Shows how far something is: a line that is rewritten on a terminal, now and then a new line elsewhere."""

import sys
import time

from ecgbatch.db.reports import Progress
from ecgbatch.printing import printable

LINE_EVERY = 10.0
"""Seconds between lines where the output is no terminal."""
BAR = 24


class ProgressLine:
    """A line on standard error that says how far it is."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown_at = 0.0
        self._open = False

    def show(self, text: str) -> None:
        """Replaces the line; where the output is no terminal, at most one in LINE_EVERY seconds is written."""
        text = printable(text, sys.stderr)
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._open = True
        elif time.monotonic() - self._shown_at > LINE_EVERY:
            print(text, file=sys.stderr, flush=True)
            self._shown_at = time.monotonic()

    def close(self) -> None:
        """Ends the line, so that what follows starts on its own."""
        if self._open:
            print(file=sys.stderr)
            self._open = False


class Rate:
    """Records per second of the last half minute: what the time left is reckoned from."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._seen: list[tuple[float, int]] = []

    def update(self, done: int) -> float | None:
        """The rate, None while it cannot be told."""
        now = time.monotonic()
        self._seen = [(at, n) for at, n in self._seen if now - at < self._seconds] + [(now, done)]
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_at - first_at) if last > first else None


def in_words(progress: Progress, rate: float | None) -> str:
    """One line: a bar, the counts, the rate and the time left."""
    done = progress.total - progress.remaining
    filled = BAR * done // progress.total if progress.total else BAR
    text = f"job {progress.job_id} [{'#' * filled}{'.' * (BAR - filled)}] {done:,} of {progress.total:,}"
    if progress.failed:
        text += f", {progress.failed:,} failed"
    if rate and not progress.ended:
        text += f", {rate:,.0f} records/s, {_duration(progress.remaining / rate)} left"
    return text


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
