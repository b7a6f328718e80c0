"""Length, leads, gaps and flags: what becomes of a record whatever its format."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from wfdb_files import FEW, compiled_takes, failure, reason, samples, write

from ecgbatch.records.leads import LEADS, find_leads, lead_of
from ecgbatch.records.reading import read, read_windows
from ecgbatch.records.recording import Reason, RecordError

# ------------------------------------------------------------------------------------------ length


def with_zeros(before: int, digital: NDArray[np.int64], after: int) -> NDArray[np.int64]:
    return np.pad(digital, ((before, after), (0, 0)))


def test_a_short_record_is_read_at_its_own_length(tmp_path: Path) -> None:
    digital = samples(count=734)
    write(tmp_path, digital)
    recording = read(tmp_path, "r")
    assert recording.flags == ("short",)
    assert np.array_equal(recording.signal, digital / 1000)


@pytest.mark.parametrize(("rate", "count", "expected"), [("400", 2934, 734), ("500", 4998, 1000), ("500", 4950, 990)])
def test_a_record_at_another_rate_keeps_its_length(tmp_path: Path, rate: str, count: int, expected: int) -> None:
    write(tmp_path, samples(count=count), rate=rate)
    recording = read(tmp_path, "r")
    assert recording.signal.shape == (expected, 12)
    assert recording.flags == (("resampled", "short") if expected < 990 else ("resampled",))


@pytest.mark.parametrize(("count", "short"), [(990, False), (989, True)])
def test_from_9_9_seconds_on_it_is_ten_seconds(tmp_path: Path, count: int, short: bool) -> None:
    write(tmp_path, samples(count=count))
    recording = read(tmp_path, "r")
    assert ("short" in recording.flags) == short
    assert len(recording.signal) == count


def test_too_short_says_what_was_found_and_what_is_needed(tmp_path: Path) -> None:
    write(tmp_path, samples(count=499))
    error = failure(tmp_path)
    assert (error.reason, error.detail) == (
        Reason.WRONG_DURATION,
        "4.99 seconds of signal; at least 5 are needed",
    )
    assert read(tmp_path, "r", min_seconds=2.5).flags == ("short",)
    write(tmp_path, samples(count=500))
    assert read(tmp_path, "r").flags == ("short",)
    with pytest.raises(RecordError, match="at least 10 are needed"):
        read(tmp_path, "r", min_seconds=10)


def test_a_longer_record_is_cropped(tmp_path: Path) -> None:
    digital = samples(count=1001)
    write(tmp_path, digital)
    recording = read(tmp_path, "r")
    assert recording.flags == ("cropped",)
    assert np.array_equal(recording.signal, digital[:1000] / 1000)


@pytest.mark.parametrize(
    ("before", "count", "after", "flags"),
    [
        (581, 734, 581, ("short",)),
        (0, 900, 100, ("short",)),
        (100, 1000, 100, ()),
        (100, 1200, 300, ("cropped",)),
        (900, 1000, 900, ()),
    ],
)
def test_zeros_at_the_ends_are_cut_off_first(
    tmp_path: Path, before: int, count: int, after: int, flags: tuple[str, ...]
) -> None:
    digital = samples(count=count)
    write(tmp_path, with_zeros(before, digital, after))
    recording = read(tmp_path, "r")
    assert np.array_equal(recording.signal, digital[:1000] / 1000)
    assert set(recording.flags) - {"cropped"} == set(flags) - {"cropped"}


def test_a_few_zeros_at_an_end_are_signal(tmp_path: Path) -> None:
    digital = with_zeros(9, samples(count=982), 9)
    write(tmp_path, digital)
    assert np.array_equal(read(tmp_path, "r").signal, digital / 1000)


@pytest.mark.parametrize("digital", [np.zeros((1000, 12), int), np.full((1000, 12), 7), np.zeros((5000, 12), int)])
def test_where_nothing_moves_there_is_no_signal(tmp_path: Path, digital: NDArray[np.int64]) -> None:
    write(tmp_path, digital)
    assert reason(tmp_path) == Reason.NO_SIGNAL


# ------------------------------------------------------------------------------------------ windows


def test_windows_cover_all_of_a_record(tmp_path: Path) -> None:
    digital = samples(count=3700)
    write(tmp_path, with_zeros(200, digital, 0))
    windows = read_windows(tmp_path, "r")
    assert [(window.start, len(window.recording.signal)) for window in windows] == [
        (2.0, 1000),
        (12.0, 1000),
        (22.0, 1000),
        (32.0, 700),
    ]
    assert np.array_equal(np.concatenate([window.recording.signal for window in windows]), digital / 1000)
    assert [window.recording.flags for window in windows] == [(), (), (), ("short",)]
    first = read(tmp_path, "r")
    assert first.signal.tobytes() == windows[0].recording.signal.tobytes()
    assert {window.recording.sha256 for window in windows} == {first.sha256}


def test_a_window_that_cannot_be_scored_is_left_out(tmp_path: Path) -> None:
    digital = samples(count=3300)
    digital[1000:2000] = 0
    write(tmp_path, digital)
    windows = read_windows(tmp_path, "r")
    assert [(window.start, *window.recording.flags) for window in windows] == [(0.0, "cropped"), (20.0, "cropped")]
    digital[:] = 0
    write(tmp_path, digital)
    with pytest.raises(RecordError) as caught:
        read_windows(tmp_path, "r")
    assert caught.value.reason == Reason.NO_SIGNAL


@pytest.mark.parametrize(
    ("count", "zeros", "rate"), [(1000, 0, "100"), (700, 0, "100"), (5000, 0, "500"), (800, 3000, "100")]
)
def test_a_record_of_ten_seconds_is_one_window_as_it_is_read(tmp_path: Path, count: int, zeros: int, rate: str) -> None:
    write(tmp_path, with_zeros(0, samples(count=count), zeros), rate=rate)
    [window] = read_windows(tmp_path, "r")
    whole = read(tmp_path, "r")
    assert window.start is None
    assert window.recording.signal.tobytes() == whole.signal.tobytes()
    assert {*window.recording.flags} == {*whole.flags} - {"cropped"}


def test_ends_that_hold_nothing_are_not_left_out(tmp_path: Path) -> None:
    write(tmp_path, with_zeros(50, samples(count=2600), 4000))
    windows = read_windows(tmp_path, "r")
    assert [(window.start, len(window.recording.signal)) for window in windows] == [
        (0.5, 1000),
        (10.5, 1000),
        (20.5, 600),
    ]
    assert [window.recording.flags for window in windows] == [(), (), ("short",)]


def test_a_rest_that_is_too_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, samples(count=2300))
    assert [(w.start, w.recording.flags) for w in read_windows(tmp_path, "r")] == [
        (0.0, ("cropped",)),
        (10.0, ("cropped",)),
    ]


def test_windows_of_more_than_an_hour_are_said_to_be_cropped(tmp_path: Path) -> None:
    write(tmp_path, np.tile(samples(), (361, 1)))
    windows = read_windows(tmp_path, "r")
    assert len(windows) == 360
    assert {window.recording.flags for window in windows} == {("cropped",)}


# ------------------------------------------------------------------------------------------ leads


@FEW
@given(
    order=st.permutations(range(14)),
    case=st.sampled_from([str, str.upper, str.lower, str.swapcase]),
    alias=st.sampled_from(["{}", "Lead {}", "lead_{}", "MDC_ECG_LEAD_{}", "ECG {}", " {} "]),
)
def test_leads_are_matched_by_name(order: list[int], case: type[str], alias: str) -> None:
    digital = samples(leads=14)
    names = [case(alias.format(lead)) for lead in LEADS] + ["V3R", "resp nasal"]
    with TemporaryDirectory() as folder:
        write(Path(folder), digital[:, order], names=tuple(names[i] for i in order))
        assert np.array_equal(read(Path(folder), "r").signal, digital[:, :12] / 1000)
        compiled_takes(Path(folder) / "r")


def test_other_names_of_leads(tmp_path: Path) -> None:
    assert [lead_of(name) for name in ("DI", "dii", "D3", "C1", "c6", "MDC_ECG_LEAD_AVR")] == [
        *("I", "II", "III", "V1", "V6", "aVR")
    ]


@pytest.mark.parametrize(
    "name", ["-aVR", "MLII", "V3R", "V7", "I-", "lead", "mdc ecg lead", "", "DV1", "1", "aVR V1", "IV", "D4", "C7"]
)
def test_what_only_resembles_a_lead_is_none(name: str) -> None:
    assert lead_of(name) is None


@pytest.mark.parametrize("other", ["Cz", "C10", "D4"])
def test_electrodes_of_an_eeg_are_no_leads(tmp_path: Path, other: str) -> None:
    names = (*LEADS[:6], "C1", "C2", "C3", "C4", "C5", "C6", other)
    write(tmp_path, samples(leads=13), names=names)
    with pytest.raises(RecordError, match="no lead V1, V2, V3, V4, V5, V6; it has I, II"):
        read(tmp_path, "r")


LIMBS = ("I", "II", "III", "aVR", "aVL", "aVF")


@pytest.mark.parametrize("there", [(0, 1), (0, 2), (1, 2), (3, 4), (0, 5), (0, 1, 2), (1, 3, 5), (0, 1, 2, 3, 4)])
def test_limb_leads_follow_from_two_of_them(tmp_path: Path, there: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    first, second = 2 * rng.integers(-3000, 3000, (2, 1000))
    limbs = [first, second, second - first, -(first + second) // 2, first - second // 2, second - first // 2]
    chest = samples(leads=6)
    write(
        tmp_path,
        np.column_stack([*(limbs[i] for i in there), chest]),
        names=(*(LIMBS[i] for i in there), *LEADS[6:]),
    )
    recording = read(tmp_path, "r")
    assert recording.flags == ("leads_derived",)
    np.testing.assert_allclose(recording.signal, np.column_stack([*limbs, chest]) / 1000, atol=1e-9)


def test_a_missing_lead_is_named_beside_those_that_are_there() -> None:
    for names, detail in [
        (
            [*LEADS[:6], *LEADS[7:], "resp"],
            "no lead V1; it has I, II, .*, V6 and 1 other",
        ),
        ([*LEADS[5:]], "no lead I, II, III, aVR, aVL; it has aVF, V1"),
        (["PLETH"], "it has none of the twelve and 1 other"),
    ]:
        with pytest.raises(RecordError, match=detail) as caught:
            find_leads(names)
        assert caught.value.reason == Reason.MISSING_LEAD


# ------------------------------------------------------------------------------------------ gaps and flags


def test_gaps_are_filled_up_to_a_hundredth(tmp_path: Path) -> None:
    digital = samples(count=1500)
    digital[1200, 3] = -32768
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == ("cropped",)
    digital[900:910, 3] = -32768
    write(tmp_path, digital)
    recording = read(tmp_path, "r")
    assert recording.flags == ("cropped", "gap_filled")
    expected = np.linspace(digital[899, 3], digital[910, 3], 12)[1:-1] / 1000
    np.testing.assert_allclose(recording.signal[900:910, 3], expected)
    digital[10, 3] = -32768
    write(tmp_path, digital)
    assert reason(tmp_path) == Reason.NOT_FINITE


def test_gains_that_make_samples_infinite(tmp_path: Path) -> None:
    write(tmp_path, samples(), scale="1e-306(0)/V")
    assert reason(tmp_path) == Reason.NOT_FINITE


def test_flat_leads_and_checksums(tmp_path: Path) -> None:
    digital = samples()
    digital[:, 4] = -3
    write(tmp_path, digital, checksums=np.arange(12))
    assert read(tmp_path, "r").flags == ("checksum_mismatch", "flat_lead")
    write(tmp_path, digital, checksums=digital.sum(axis=0) % 65536 - 65536)
    assert read(tmp_path, "r").flags == ("flat_lead",)
    digital[-1, 4] = -2
    write(tmp_path, digital)
    assert read(tmp_path, "r").flags == (), "a lead that moves at its end is not flat"


@pytest.mark.parametrize(
    ("rate", "level", "held", "clipped"),
    [
        ("100", 2500, 5, True),
        ("100", 2500, 4, False),
        ("100", 1900, 50, False),
        ("500", -2500, 10, True),
        ("500", -2500, 9, False),
    ],
)
def test_clipped_leads(tmp_path: Path, rate: str, level: int, held: int, clipped: bool) -> None:
    digital = samples(count=10 * int(rate), bits=11)
    digital[300 : 300 + held, 7] = level
    write(tmp_path, digital, rate=rate)
    assert ("clipped" in read(tmp_path, "r").flags) == clipped
    compiled_takes(tmp_path / "r")
