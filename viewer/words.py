"""How superclasses, people and times are spelt on pages and pictures, and what reasons and flags mean."""

from datetime import UTC, datetime

from ecgbatch.models.config import MEANINGS
from ecgbatch.records.recording import Flag, Reason

REASONS = {str(reason): reason.meaning for reason in Reason}
FLAGS = {str(flag): flag.meaning for flag in Flag}


def name_of(label: str) -> str:
    """A class in full: superclasses with what they are, others by their names."""
    return f"{MEANINGS[label]} ({label.upper()})" if label in MEANINGS else label


def person(age: float | None, sex: float | None) -> str:
    """Age in years and sex (0 male, 1 female), as far as they are known."""
    years = "age not known" if age is None else f"{age:g} years"
    return f"{years}, {'sex not known' if sex is None else ('male', 'female')[int(sex)]}"


def moment(time: datetime) -> str:
    """A time to the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
