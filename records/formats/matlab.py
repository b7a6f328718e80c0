"""MATLAB level 5 files: CPSC2018's `struct ECG`, and arrays that `archive.toml` tells about."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.files import Files
from ecgbatch.records.finishing import Decoded
from ecgbatch.records.formats.format import Format, check_only, load_whole
from ecgbatch.records.formats.layout import NAME, Layout, layout_of
from ecgbatch.records.formats.matlab_elements import HEADER_BYTES, Value, variables
from ecgbatch.records.formats.patient import sex_of_word, years
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import Reason, RecordError

_CPSC2018 = Layout(rate=500.0, per_millivolt=1.0, leads=LEADS)
"""As its authors describe it (Liu et al., J Med Imaging Health Inform 2018)."""


def _read(files: Files, path: str, member: str | None) -> Decoded:
    check_only(member)
    layout = layout_of(files, path)
    data = load_whole(files, path)
    found = variables(data)
    if _is_cpsc2018(ecg := found.get("ECG")):
        return _of_cpsc2018(ecg)
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray) and value.size > 1}
    return (layout or Layout()).decode(_chosen(arrays, layout), FORMAT.name)


def _is_cpsc2018(ecg: Value) -> bool:
    return isinstance(ecg, dict) and {"sex", "age", "data"} <= set(ecg) and isinstance(ecg["data"], np.ndarray)


def _of_cpsc2018(ecg: Any) -> Decoded:
    decoded = _CPSC2018.decode(ecg["data"], FORMAT.name)
    age, sex = ecg["age"], ecg["sex"]
    number = float(age.flat[0]) if isinstance(age, np.ndarray) and age.size == 1 else None
    return Decoded(
        decoded.millivolts,
        decoded.rate,
        decoded.leads,
        decoded.format,
        age=years(number),
        sex=sex_of_word(sex) if isinstance(sex, str) else None,
    )


def _chosen(arrays: dict[str, NDArray[Any]], layout: Layout | None) -> NDArray[Any]:
    """The array that the layout names, or the only one."""
    if layout and layout.dataset is not None:
        if layout.dataset not in arrays:
            raise RecordError(Reason.MISSING_LAYOUT, f"the file has no array {layout.dataset!r}")
        return arrays[layout.dataset]
    if len(arrays) != 1:
        raise RecordError(Reason.MISSING_LAYOUT, f"the file has {len(arrays)} arrays: {NAME} must name one as dataset")
    return next(iter(arrays.values()))


def _recognises(head: bytes) -> bool:
    return head.startswith(b"MATLAB 5.0 MAT-file") and len(head) > HEADER_BYTES and head[126:128] in (b"IM", b"MI")


FORMAT = Format("matlab", _recognises, _read)
