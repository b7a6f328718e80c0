"""Real files from elsewhere: what each is read as, and that other readers find the same heights in it."""

from pathlib import Path

import numpy as np
import pytest

from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError

ENDS = {
    "muse/example1.xml": ("muse", {"leads_derived"}, None, None, None),
    "cardiosoft/dummy_ecg.xml": ("cardiosoft", set(), None, None, "CardioSoft V6.71"),
    "philips/demo_1_04_utf16.xml": ("philips", set(), 60, 0, "Philips PageWriter Touch"),
    "dicom/waveform_ecg.dcm": ("dicom", set(), 42, 1, "Mortara Instrument, Inc. el250"),
    "aecg/subject1_0.xml": ("aecg", set(), 49, 0, "Mortara Instrument, Inc. ELI250"),
    "scp/example.scp": ("scp", set(), 49, 0, "ELI250"),
    "edf/twelve_channels_800hz.edf": ("edf", {"cropped", "flat_lead"}, None, None, None),
    "ishne/ECG_P28.01.ecg": ("ishne", {"cropped"}, None, None, None),
    "cpsc2018/A1980.mat": ("matlab", set(), 52, 0, None),
}

HEIGHTS = {
    "muse/example1.xml": (1.348, 1.468, 2.517),
    "cardiosoft/dummy_ecg.xml": (1.709, 0.416, 1.430),
    "philips/demo_1_04_utf16.xml": (0.433, 2.419, 3.788),
    "dicom/waveform_ecg.dcm": (0.723, 1.258, 1.085),
    "aecg/subject1_0.xml": (0.684, 0.958, 2.325),
    "scp/example.scp": (0.684, 0.958, 2.325),
    "edf/twelve_channels_800hz.edf": (8.180, 7.773, 0.0),
    "ishne/ECG_P28.01.ecg": (0.636, 1.246, 0.858),
    "cpsc2018/A1980.mat": (0.727, 1.316, 2.523),
}
"""Millivolts from the lowest to the highest sample of I, II and V2."""


@pytest.mark.parametrize("path", ENDS)
def test_a_real_file(shared: Path, path: str) -> None:
    format, flags, age, sex, device = ENDS[path]
    found = read(shared / "field", path)
    assert found.format == format
    assert set(found.flags) == {*flags, "resampled"}
    assert (found.age, found.sex, found.device) == (age, sex, device)
    assert found.signal.shape == (1000, 12)
    assert np.ptp(found.signal[:, [0, 1, 7]], axis=0) == pytest.approx(HEIGHTS[path], abs=2e-3)
    assert np.abs(found.signal[:, 0] + found.signal[:, 2] - found.signal[:, 1]).max() < 0.03


def test_two_files_of_one_ecg(shared: Path) -> None:
    field = shared / "field"
    scp, aecg = read(field, "scp/example.scp"), read(field, "aecg/subject1_0.xml")
    assert np.array_equal(scp.signal, aecg.signal)


def test_a_file_that_is_no_recording(shared: Path) -> None:
    with pytest.raises(RecordError) as caught:
        read(shared / "field", "README.md")
    assert caught.value.reason == Reason.UNKNOWN_FORMAT
