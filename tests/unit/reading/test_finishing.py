"""Length, leads, gaps and flags: what becomes of a record whatever its format."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wfdb_files import FEW, reason, samples, write

from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError


@FEW
@given(
    order=st.permutations(range(14)),
    case=st.sampled_from([str, str.upper, str.lower, str.swapcase]),
    limb=st.sampled_from(["", "D"]),
)
def test_leads_are_matched_by_name(order: list[int], case: type[str], limb: str) -> None:
    digital = samples(leads=14)
    names = [case(limb + lead if set(lead) == {"I"} else lead) for lead in LEADS] + ["V3R", "resp nasal"]
    with TemporaryDirectory() as folder:
        write(Path(folder), digital[:, order], names=tuple(names[i] for i in order))
        assert np.array_equal(read(Path(folder), "r").signal, digital[:, :12] / 1000)


def test_duration(tmp_path: Path) -> None:
    write(tmp_path, samples(count=499))
    assert reason(tmp_path) == Reason.WRONG_DURATION
    digital = samples(count=1001)
    write(tmp_path, digital)
    recording = read(tmp_path, "r")
    assert recording.flags == ("cropped",)
    assert np.array_equal(recording.signal, digital[:1000] / 1000)


def test_flags(tmp_path: Path) -> None:
    digital = samples()
    digital[:, 4] = -3
    write(tmp_path, digital, checksums=np.arange(12))
    assert read(tmp_path, "r").flags == ("checksum_mismatch", "flat_lead")
    write(tmp_path, digital, checksums=digital.sum(axis=0) % 65536 - 65536)
    assert read(tmp_path, "r").flags == ("flat_lead",)
    digital[-1, 4] = -2
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == (), "a lead that moves at its end is not flat"


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    digital = samples(count=1500)
    digital[1200, 3] = -32768
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == ("cropped",)
    digital[900:910, 3] = -32768
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == ("cropped", "gap_filled")
    digital[910, 3] = -32768
    write(tmp_path, digital)
    assert reason(tmp_path) == Reason.NOT_FINITE
    write(tmp_path, samples(), scale="1e-306(0)/V")
    assert reason(tmp_path) == Reason.NOT_FINITE


def test_a_missing_lead_is_named(tmp_path: Path) -> None:
    write(tmp_path, samples(leads=11), names=LEADS[:7] + LEADS[8:])
    with pytest.raises(RecordError, match="V2") as caught:
        read(tmp_path, "r")
    assert caught.value.reason == Reason.MISSING_LEAD
