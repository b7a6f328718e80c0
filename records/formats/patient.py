"""Age and sex as files of all kinds put them."""

import math
from datetime import date

from ecgbatch.records.archives.demographics import SEXES

_DAYS_PER_YEAR = 365.25
_YEARS = {
    "y": 1.0, "a": 1.0, "yr": 1.0, "year": 1.0,
    "m": 1 / 12, "mo": 1 / 12, "month": 1 / 12,
    "w": 7 / _DAYS_PER_YEAR, "wk": 7 / _DAYS_PER_YEAR, "week": 7 / _DAYS_PER_YEAR,
    "d": 1 / _DAYS_PER_YEAR, "day": 1 / _DAYS_PER_YEAR,
    "h": 1 / _DAYS_PER_YEAR / 24, "hour": 1 / _DAYS_PER_YEAR / 24,
}  # fmt: skip


def sex_of_word(text: str | None) -> int | None:
    """0 for `M` and `Male`, 1 for `F` and `Female`, in any case; None for all else, as `UN`, `O` or `Unknown`."""
    return SEXES.get(text.strip().lower()) if text else None


def years(value: str | float | None, unit: str | None = None) -> float | None:
    """An age in years from a number and its unit (`YEARS`, `Months`, `wk`, `d`, ...; years where there is none)."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    factor = _YEARS.get((unit or "year").strip().lower().removesuffix("s"))
    return number * factor if factor and 0 <= number < math.inf else None


def years_between(born: date | None, recorded: date | None) -> int | None:
    """Full years from one day to another; None where one is not known, or the first is the later one."""
    if born is None or recorded is None or recorded < born:
        return None
    return recorded.year - born.year - ((recorded.month, recorded.day) < (born.month, born.day))


def day(text: str | None) -> date | None:
    """The day in `19530101`, `195301011200` or `1953-01-01T12:00`; None where there is none."""
    digits = "".join(c for c in (text or "").strip()[:10] if c.isascii() and c.isdecimal())
    return day_of(digits[:4], digits[4:6], digits[6:8])


def day_of(year: str | int | None, month: str | int | None, day_of_month: str | int | None) -> date | None:
    """The day of these three numbers; None where they are no day."""
    try:
        return date(int(year or 0), int(month or 0), int(day_of_month or 0))
    except ValueError:
        return None
