"""The twelve leads: their names in other archives, and how limb leads follow from each other."""

from collections.abc import Mapping, Sequence

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


def lead_of(name: str) -> str | None:
    """Which of the twelve leads a signal's name means, in any case: `I`, `DI`, `Lead I`, `MDC_ECG_LEAD_I`, `C1`.

    None for any other: a name that only resembles one (`-aVR`, `MLII`, `V3R`) is not taken for it.
    """
    words = name.replace("_", " ").lower().split()
    while len(words) > 1 and words[0] in _BEFORE:
        del words[0]
    return _ALIASES.get(" ".join(words))


def find_leads(names: Sequence[str]) -> dict[str, int]:
    """Which signal is which lead, in the order of LEADS; of two signals of a lead the first.

    Raises RecordError (`missing_lead`) if a lead is missing that does not follow from others.
    """
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if lead := lead_of(name):
            found.setdefault(lead, index)
    limbs = [lead for lead in _FROM_I_AND_II if lead in found]
    missing = [lead for lead in LEADS if lead not in found and (len(limbs) < 2 or lead not in _FROM_I_AND_II)]
    if missing:
        there = [lead for lead in LEADS if lead in found]
        others = f" and {len(names) - len(there)} other signals" if len(names) > len(there) else ""
        has = f"{', '.join(there) or 'none of the twelve'}{others}"
        raise RecordError(Reason.MISSING_LEAD, f"the record has no lead {', '.join(missing)}; it has {has}")
    return {lead: found[lead] for lead in LEADS if lead in found}


def derive_limb_leads(signal: NDArray[np.float64], leads: Sequence[str]) -> NDArray[np.float64]:
    """(T, n) of the named leads, all chest leads and two limb leads or more -> (T, 12) in the order of LEADS.

    What is missing follows from the first two limb leads that are there, by Einthoven and Goldberger.
    """
    column = {lead: signal[:, at] for at, lead in enumerate(leads)}
    first, second = [lead for lead in LEADS if lead in column and lead in _FROM_I_AND_II][:2]
    basis = np.array([_FROM_I_AND_II[first], _FROM_I_AND_II[second]])
    for lead, parts in _FROM_I_AND_II.items():
        if lead not in column:
            of_first, of_second = np.linalg.solve(basis.T, parts)
            column[lead] = of_first * column[first] + of_second * column[second]
    return np.stack([column[lead] for lead in LEADS], axis=1)
