"""What the address of a job's page asks for: which records, in which order, from where on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from ecgbatch.db.browse import Place, Wanted
from ecgbatch.settings import EcgbatchError

LONGEST_TEXT = 200
MOST_DIGITS = 18
"""Of a job's or a record's number: what databases take, and some less."""


@dataclass(frozen=True)
class Asked:
    """The parts of an address, as texts; empty is what was not asked for.

    show: `failed` for failures. superclass: a class of the model, with `least` and `most`, else at its threshold.
    sort: as `Wanted` has it, with a `-` before it the other way round.
    """

    show: str = ""
    superclass: str = ""
    least: str = ""
    most: str = ""
    flag: str = ""
    reason: str = ""
    text: str = ""
    sort: str = ""
    after: str = ""
    before: str = ""

    @classmethod
    def of(cls, argument: Callable[..., Any]) -> "Asked":
        """What a request asks for. Raises EcgbatchError for what makes no sense."""
        asked = cls(**{name: str(argument(name, ""))[:LONGEST_TEXT].strip() for name in cls.__dataclass_fields__})
        _check("show", asked.show, ("failed",))
        return asked

    def address(self, **changes: str) -> str:
        """The part of an address from its question mark on; from another place on unless `changes` names it."""
        values = vars(replace(self, **({"after": "", "before": ""} | changes)))
        return "?" + urlencode({name: value for name, value in values.items() if value})

    def wanted(self, thresholds: dict[str, float]) -> Wanted:
        """What is looked for, at the thresholds of a model's classes where nothing else is asked.

        Raises EcgbatchError for a class that is none of them.
        """
        _check("superclass", self.superclass, thresholds)
        _check("sort", self.sort.removeprefix("-"), ("id", "path", *thresholds))
        least, most = _number("least", self.least, 0.0), _number("most", self.most, 1.0)
        if self.superclass and not self.least and not self.most:
            least = thresholds[self.superclass]
        return Wanted(
            self.superclass or None,
            least,
            most,
            self.flag or None,
            self.text or None,
            self.sort.removeprefix("-") or "id",
            self.sort.startswith("-"),
        )

    def place(self) -> Place:
        return Place(number("after", self.after), number("before", self.before))


def _check(name: str, value: str, known: Collection[str]) -> None:
    if value and value not in known:
        raise EcgbatchError(f"{name} is one of {', '.join(known)}, not {value!r}")


def _number(name: str, text: str, otherwise: float) -> float:
    try:
        return float(text.replace(",", ".")) if text else otherwise
    except ValueError:
        raise EcgbatchError(f"{name} is a number from 0 to 1, not {text!r}") from None


def number(name: str, text: str) -> int | None:
    """The number of a job or a record, None if none is asked for. Raises EcgbatchError."""
    if text and not (text.isdecimal() and len(text) <= MOST_DIGITS):
        raise EcgbatchError(f"{name} is a number, not {text[:20]!r}")
    return int(text) if text else None
