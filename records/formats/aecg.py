"""HL7 annotated ECG (`AnnotatedECG`): the first rhythm series, never one derived from it."""

from contextlib import suppress
from datetime import UTC, date, datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats import xml
from ecgbatch.records.formats.format import Format, whole_small_file
from ecgbatch.records.formats.patient import day, sex_of_word, years, years_between
from ecgbatch.records.formats.units import per_millivolt, side_by_side
from ecgbatch.records.recording import Reason, RecordError

_REPORTED_AGE = "21612-7"
"""LOINC's code."""

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class _Sequences(NamedTuple):
    """Leads recorded at the same time: from when on, in seconds, seconds between samples, and their sequences."""

    start: float
    seconds: float
    leads: list[Element]

    @property
    def length(self) -> int:
        return len(xml.text(self.leads[0], "value/digits").split())

    @property
    def names(self) -> list[str]:
        return [_code(lead) for lead in self.leads]

    def is_followed_by(self, other: "_Sequences") -> bool:
        """Whether the other is of the same leads, and begins where this one ends."""
        off = abs(other.start - self.start - self.length * self.seconds)
        return self.names == other.names and self.seconds == other.seconds and off < 1.5 * self.seconds


def _decode(data: bytes) -> Decoded:
    root = xml.parse(data)
    series = _rhythm(root)
    together = _most_leads(series)
    first = together[0]
    person = root.find(".//subjectDemographicPerson")
    return Decoded(
        np.concatenate([side_by_side([_samples(lead) for lead in part.leads]) for part in together]),
        1 / first.seconds,
        tuple(first.names),
        FORMAT.name,
        age=_age(root, series, person),
        sex=sex_of_word(_attribute(person, "administrativeGenderCode", "code")),
        device=_device(series),
    )


def _rhythm(root: Element) -> Element:
    """The first series coded as rhythm; derived series lie deeper, below `derivation`."""
    for series in root.findall("component/series"):
        if _code(series) == "RHYTHM":
            return series
    raise RecordError(Reason.UNREADABLE_SIGNAL, "the file has no rhythm series")


def _most_leads(series: Element) -> list[_Sequences]:
    """The sequence sets with the most leads, of these the longest stretch of sets that follow on each other.

    Sets of the same times are taken together.
    """
    found: dict[tuple[float, float, int], _Sequences] = {}
    for element in series.findall("component/sequenceSet"):
        part = _times_and_leads(element)
        if part.leads:
            found.setdefault((part.start, part.seconds, part.length), part._replace(leads=[])).leads.extend(part.leads)
    stretches: list[list[_Sequences]] = []
    for part in sorted(found.values(), key=lambda part: part.start):
        before = next((stretch for stretch in stretches if stretch[-1].is_followed_by(part)), None)
        if before is None:
            stretches.append([part])
        else:
            before.append(part)
    if not stretches:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the rhythm series has no leads")
    return max(stretches, key=lambda stretch: (len(stretch[0].leads), sum(part.length for part in stretch)))


def _times_and_leads(sequences: Element) -> _Sequences:
    start = seconds = 0.0
    leads = []
    for sequence in sequences.findall("component/sequence"):
        if _code(sequence).startswith("TIME"):
            start = _start(sequence)
            step = xml.number(_attribute(sequence, "value/increment", "value"), "time between samples")
            seconds = step * _SECONDS.get(_attribute(sequence, "value/increment", "unit") or "s", 0)
        else:
            leads.append(sequence)
    if leads and seconds <= 0:
        raise RecordError(Reason.NO_SAMPLING_RATE, "the leads' sequence set gives no time between samples")
    return _Sequences(start, seconds, leads)


def _start(times: Element) -> float:
    """Seconds, from no matter when: `20021122091000.500`, or a number with its unit; 0 where there is neither."""
    head, unit = (_attribute(times, "value/head", name) for name in ("value", "unit"))
    if unit:
        return xml.number(head, "time of its beginning") * _SECONDS.get(unit, 0)
    clock, _, fraction = head.partition("+")[0].partition("-")[0].partition(".")
    with suppress(ValueError, OverflowError):
        return datetime.strptime(clock, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")
    return 0.0


def _samples(sequence: Element) -> NDArray[np.float64]:
    """In millivolts: origin + scale * digits."""
    name = _code(sequence)
    digits = xml.numbers(xml.text(sequence, "value/digits"))
    scale, origin = (_millivolts(sequence, part, name) for part in ("scale", "origin"))
    return digits * scale + origin


def _millivolts(sequence: Element, part: str, lead: str) -> float:
    value = xml.number(_attribute(sequence, f"value/{part}", "value") or ("0" if part == "origin" else ""), part)
    return value / per_millivolt(_attribute(sequence, f"value/{part}", "unit"), lead) if value else 0.0


def _code(element: Element) -> str:
    return _attribute(element, "code", "code")


def _attribute(element: Element | None, path: str, name: str) -> str:
    found = element.find(path) if element is not None else None
    return found.get(name, "") if found is not None else ""


def _age(root: Element, series: Element, person: Element | None) -> float | None:
    """From the day of birth, else as the subject reported it."""
    recorded = _first_day(series) or _first_day(root)
    age = years_between(day(_attribute(person, "birthTime", "value")), recorded)
    if age is not None:
        return age
    for observation in root.iter("relatedObservation"):
        if _code(observation) == _REPORTED_AGE:
            return years(_attribute(observation, "value", "value"), _attribute(observation, "value", "unit"))
    return None


def _first_day(element: Element) -> date | None:
    times = (_attribute(element, f"effectiveTime/{part}", "value") for part in ("low", "center", "high"))
    return next(filter(None, map(day, times)), None)


def _device(series: Element) -> str | None:
    author = series.find("author/seriesAuthor")
    maker = xml.text(author, "manufacturerOrganization/name")
    model = xml.text(author, "manufacturedSeriesDevice/manufacturerModelName")
    return " ".join(filter(None, (maker, model))) or None


FORMAT = Format("aecg", lambda head: xml.root_name(head) == "AnnotatedECG", whole_small_file(_decode))
