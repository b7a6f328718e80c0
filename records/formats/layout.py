"""`archive.toml`: what arrays do not tell themselves, written down beside them once for all of them.

```toml
rate = 500                  # samples per second
units = "mV"                # V, mV, uV or nV, or so many of them: "4.88 uV"
leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
dataset = "tracings"        # HDF5 and MATLAB files with more than one array: which of them
ids = "exam_id"             # HDF5: the names of an array's records; without it they are numbered from 0
```
"""

import functools
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.units import per_millivolt
from ecgbatch.records.recording import Reason, RecordError

NAME = "archive.toml"

_LARGEST = 1 << 16
_KEYS = ("rate", "units", "leads", "dataset", "ids")
_EXAMPLE = 'rate = 500, units = "mV", leads = ["I", "II", ...]'


@dataclass(frozen=True, slots=True)
class Layout:
    """What is told of arrays: samples a second, how many of their units are a millivolt, and their leads in order.

    None where it is not told. dataset and ids are names within a file.
    """

    rate: float | None = None
    per_millivolt: float | None = None
    leads: tuple[str, ...] | None = None
    dataset: str | None = None
    ids: str | None = None

    def decode(self, array: NDArray[Any], format: str, leads: tuple[str, ...] | None = None) -> Decoded:
        """The record in (T, n) or (n, T), n leads; `leads` are those that the file itself names.

        Raises RecordError (`missing_layout`) that says what to write where something is not told.
        """
        leads = leads or self.leads
        told = {"rate": self.rate, "units": self.per_millivolt, "leads": leads}
        if missing := [key for key, value in told.items() if value is None]:
            detail = f"the file does not tell its {', '.join(missing)}: write them into {NAME} beside it, as {_EXAMPLE}"
            raise RecordError(Reason.MISSING_LAYOUT, detail)
        assert self.rate is not None and self.per_millivolt is not None and leads is not None
        if array.ndim != 2 or len(leads) not in array.shape or array.shape[0] == array.shape[1]:
            shape = " x ".join(map(str, array.shape[:4]))
            raise RecordError(Reason.MISSING_LAYOUT, f"an array of {shape} for {len(leads)} leads")
        samples = array if array.shape[1] == len(leads) else array.T
        if samples.dtype.kind not in "iuf":
            raise RecordError(Reason.UNREADABLE_SIGNAL, "the samples are no numbers")
        with np.errstate(invalid="ignore", over="ignore"):
            millivolts = samples.astype(np.float64, order="C")
            if self.per_millivolt != 1:
                millivolts /= self.per_millivolt
        return Decoded(millivolts, self.rate, leads, format)


def layout_of(files: Files, path: str) -> Layout | None:
    """What the nearest `archive.toml` says, in the file's folder or above it in the archive; None without one.

    It goes into the record's digest. Raises RecordError (`missing_layout`) for one that cannot be understood.
    """
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        at = f"{folder}/{NAME}" if folder else NAME
        if files.exists(at):
            return _parsed(files.load(at, _LARGEST).data)
    return None


@functools.lru_cache(maxsize=16)
def _parsed(content: bytes) -> Layout:
    try:
        told = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(Reason.MISSING_LAYOUT, f"{NAME} is no TOML file") from error
    if unknown := sorted(set(told) - set(_KEYS)):
        raise RecordError(Reason.MISSING_LAYOUT, f"{NAME} has a key {unknown[0]!r}; it knows {', '.join(_KEYS)}")
    rate, units, leads = told.get("rate"), told.get("units"), told.get("leads")
    if not (rate is None or (type(rate) in (int, float) and 0 < rate < float("inf"))):
        raise RecordError(Reason.MISSING_LAYOUT, f"rate in {NAME} must be a number, of samples a second")
    if not (leads is None or (isinstance(leads, list) and leads and all(isinstance(lead, str) for lead in leads))):
        raise RecordError(Reason.MISSING_LAYOUT, f"leads in {NAME} must be a list of names")
    if not all(isinstance(told.get(key, ""), str) for key in ("units", "dataset", "ids")):
        raise RecordError(Reason.MISSING_LAYOUT, f"units, dataset and ids in {NAME} must be text")
    return Layout(
        None if rate is None else float(rate),
        None if units is None else _per_millivolt(units),
        None if leads is None else tuple(leads),
        told.get("dataset"),
        told.get("ids"),
    )


def _per_millivolt(units: str) -> float:
    """Of `mV`, or of `4.88 uV`."""
    number, _, unit = units.strip().rpartition(" ")
    try:
        factor = float(number or 1)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise RecordError(Reason.MISSING_LAYOUT, f'units in {NAME} must be as "mV" or "4.88 uV"')
    return per_millivolt(unit, "units") / factor
