"""The twelve leads: their names in other archives, how limb leads follow from each other, and sets of fewer."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.recording import Reason, RecordError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""In the order of PTB-XL."""

_FROM_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
"""Einthoven and Goldberger: what of I and of II each limb lead is."""

LIMB_LEADS = tuple(_FROM_I_AND_II)

LEAD_SETS: Mapping[str, tuple[str, ...]] = {
    "limb+V2": (*LIMB_LEADS, "V2"),
    "limb": LIMB_LEADS,
    "precordial": LEADS[6:],
    "II": ("II",),
    "I": ("I",),
}
"""Which leads a model may be declared for besides all twelve, the most telling first. Two limb leads are all six."""

_ALIASES = (
    {lead.lower(): lead for lead in LEADS}
    | {f"c{number}": f"V{number}" for number in range(1, 7)}
    | {"di": "I", "dii": "II", "diii": "III", "d1": "I", "d2": "II", "d3": "III"}
)
_BEFORE = {"mdc", "ecg", "ekg", "lead"}
_ON_A_GRID = re.compile(r"[cd]\d{1,9}", re.ASCII)
_ELECTRODE = re.compile(r"c(?:z|0|\d{2,9})|d(?:0|[4-9]|\d{2,9})", re.ASCII)


def lead_of(name: str) -> str | None:
    """Which of the twelve leads a signal's name means, in any case: `I`, `DI`, `Lead I`, `MDC_ECG_LEAD_I`, `C1`.

    None for any other: a name that only resembles one (`-aVR`, `MLII`, `V3R`) is not taken for it.
    """
    return _ALIASES.get(_bare(name))


def leads_of_signals(names: Sequence[str]) -> list[str | None]:
    """Which of the twelve leads each of a record's signals is, by its name.

    `C1` to `C6` and `D1` to `D3` are none where another signal shows that they are electrodes of an EEG: `Cz`, `C10`,
    `D4`.
    """
    bare = [_bare(name) for name in names]
    eeg = any(_ELECTRODE.fullmatch(name) for name in bare)
    return [None if eeg and _ON_A_GRID.fullmatch(name) else _ALIASES.get(name) for name in bare]


def _bare(name: str) -> str:
    """In lower case, without what devices put before a lead."""
    words = name.replace("_", " ").lower().split()
    while len(words) > 1 and words[0] in _BEFORE:
        del words[0]
    return " ".join(words)


class FoundLeads(NamedTuple):
    """Which signal is which lead, in the order of LEADS; of two signals of a lead the first.

    lead_set: which of LEAD_SETS these are, or follow from them; None for all twelve.
    """

    columns: dict[str, int]
    lead_set: str | None

    @property
    def are_derived(self) -> bool:
        """Whether some of the leads follow from others."""
        return any(lead not in self.columns for lead in leads_of(self.lead_set))


def leads_of(lead_set: str | None) -> tuple[str, ...]:
    """The leads of a set; all twelve for None."""
    return LEADS if lead_set is None else LEAD_SETS[lead_set]


def find_leads(names: Sequence[str], lead_sets: Collection[str] | None = None) -> FoundLeads:
    """The twelve leads among a record's signals or, where some are missing, the most telling of `lead_sets`.

    `lead_sets` are those of LEAD_SETS that will do, None if only all twelve will. Raises RecordError (`missing_lead`)
    if a lead is missing that does not follow from others, and none of them is there.
    """
    found: dict[str, int] = {}
    for index, lead in enumerate(leads_of_signals(names)):
        if lead:
            found.setdefault(lead, index)
    can_have = {*found, *LIMB_LEADS} if sum(lead in found for lead in LIMB_LEADS) >= 2 else set(found)
    missing = [lead for lead in LEADS if lead not in can_have]
    if not missing:
        return FoundLeads({lead: found[lead] for lead in LEADS if lead in found}, None)
    for name, leads in LEAD_SETS.items():
        if name in (lead_sets or ()) and can_have.issuperset(leads):
            needed = leads if set(leads) <= set(found) else (*leads, *LIMB_LEADS)
            return FoundLeads({lead: found[lead] for lead in LEADS if lead in found and lead in needed}, name)
    there = [lead for lead in LEADS if lead in found]
    others = f" and {len(names) - len(there)} other signals" if len(names) > len(there) else ""
    detail = f"the record has no lead {', '.join(missing)}; it has {', '.join(there) or 'none of the twelve'}{others}"
    if lead_sets is not None:
        detail += f"; of fewer leads the model takes {', '.join(n for n in LEAD_SETS if n in lead_sets) or 'none'}"
    raise RecordError(Reason.MISSING_LEAD, detail)


def as_twelve(signal: NDArray[np.float64], leads: Sequence[str], lead_set: str | None) -> NDArray[np.float64]:
    """(T, n) of the named leads, as `find_leads` gives them -> (T, 12) in the order of LEADS.

    Missing limb leads follow from the first two that are there, by Einthoven and Goldberger; leads that are not of the
    set are zero.
    """
    column = {lead: signal[:, at] for at, lead in enumerate(leads)}
    limbs = [lead for lead in LIMB_LEADS if lead in column]
    if len(limbs) >= 2:
        basis = np.array([_FROM_I_AND_II[limbs[0]], _FROM_I_AND_II[limbs[1]]])
        for lead, parts in _FROM_I_AND_II.items():
            if lead not in column:
                of_first, of_second = np.linalg.solve(basis.T, parts)
                column[lead] = of_first * column[limbs[0]] + of_second * column[limbs[1]]
    wanted, silent = leads_of(lead_set), np.zeros(len(signal))
    return np.stack([column[lead] if lead in wanted else silent for lead in LEADS], axis=1)
