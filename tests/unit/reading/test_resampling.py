"""From any rate to 100 Hz."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly
from wfdb_files import reason, replace, samples, write

from ecgbatch.records import compiled
from ecgbatch.records.finishing import rational_rate
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason
from ecgbatch.records.resampling import lowpass, resample


def test_resampled_500_hz_records_are_the_release_at_100_hz(ptbxl_fold9: Path) -> None:
    differences = []
    for header in sorted(ptbxl_fold9.glob("records500/*/*.hea")):
        record = str(header.relative_to(ptbxl_fold9).with_suffix(""))
        recording = read(ptbxl_fold9, record)
        assert "resampled" in recording.flags
        low = read(ptbxl_fold9, record.replace("500", "100", 1).replace("_hr", "_lr"))
        differences.append(recording.signal[20:-20] - low.signal[20:-20])
    assert len(differences) >= 100
    assert np.sqrt(np.mean(np.square(differences))) < 0.4e-3


@pytest.mark.parametrize("rate", ["128", "250", "257", "360", "500", "512.5", "1000", "333.333", "9999.9"])
def test_any_rate_keeps_slow_waves_and_drops_fast_ones(tmp_path: Path, rate: str) -> None:
    time = np.arange(int(10 * float(rate)) + 1) / float(rate)
    slow, fast = np.sin(2 * np.pi * 9 * time), np.sin(2 * np.pi * 55 * time)
    digital = np.rint(10000 * np.stack([slow, fast] * 6, axis=1)).astype(np.int64)
    write(tmp_path, digital, rate=rate)
    recording = read(tmp_path, "r")
    assert recording.signal.shape == (1000, 12)
    assert "resampled" in recording.flags
    expected = 10 * np.sin(2 * np.pi * 9 * (np.arange(1000) / 100 + 0.00125))
    assert np.abs(recording.signal[50:-50, 0] - expected[50:-50]).max() < 0.12
    assert np.abs(recording.signal[50:-50, 1]).max() < 0.1
    assert read(tmp_path, "r").signal.tobytes() == recording.signal.tobytes()


def test_a_low_rate_gains_no_mirror_images(tmp_path: Path) -> None:
    wave = np.rint(10000 * np.sin(2 * np.pi * 20 * np.arange(600) / 60)).astype(np.int64)
    write(tmp_path, np.stack([wave] * 12, axis=1), rate="60")
    expected = 10 * np.sin(2 * np.pi * 20 * (np.arange(1000) / 100 + 0.00125))
    assert np.abs(read(tmp_path, "r").signal[50:-50, 0] - expected[50:-50]).max() < 0.05


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("", Reason.NO_SAMPLING_RATE),
        ("0 1000", Reason.NO_SAMPLING_RATE),
        ("20 1000", Reason.UNSUPPORTED_RATE),
        ("1e9 1000", Reason.UNSUPPORTED_RATE),
    ],
)
def test_rates_that_are_refused(tmp_path: Path, rate: str, expected: Reason) -> None:
    write(tmp_path, samples())
    replace(tmp_path / "r.hea", "r 12 100 1000", f"r 12 {rate}")
    assert reason(tmp_path) == expected


@pytest.mark.parametrize("rate", ["60", "128", "250", "257", "333.333", "500", "512.5", "1000"])
def test_it_is_the_polyphase_filter_of_scipy(rate: str) -> None:
    exact = rational_rate(float(rate))
    signal = np.random.default_rng(0).standard_normal((int(7.3 * exact), 12)).cumsum(axis=0)
    up, down, taps = lowpass(exact)
    expected = resample_poly(signal, up, down, axis=0, window=taps / up, padtype="line")
    np.testing.assert_allclose(resample(signal, exact), expected, rtol=0, atol=1e-11)


def test_compiled_or_not_it_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for rate in (Fraction(257), Fraction(500), Fraction(1001, 3)):
        signal = np.random.default_rng(0).standard_normal((int(9.7 * rate), 12))
        with_it = resample(signal, rate)
        with monkeypatch.context() as without:
            without.setattr(compiled, "reader", None)
            assert resample(signal, rate).tobytes() == with_it.tobytes()


def test_an_odd_rate_takes_little_memory() -> None:
    """A filter for 9991.1 Hz exactly would have 3.6 million taps for each of its thousand phases together."""
    for tenth in range(9990, 10000):
        assert lowpass(Fraction(99900 + tenth - 9990, 10)).taps.nbytes <= 2 << 20


@pytest.mark.parametrize("rate", ["500", "9991.1"])
def test_a_worker_that_resamples_imports_no_scipy_and_stays_small(tmp_path: Path, rate: str) -> None:
    write(tmp_path, samples(count=int(10 * float(rate)) + 1), rate=rate)
    code = (
        "import resource, sys; from pathlib import Path; from ecgbatch.records.reading import read; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        f"read(Path({str(tmp_path)!r}), 'r'); "
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "print([m for m in ('wfdb', 'scipy', 'pandas') if m in sys.modules], (after - before) // 1024 < 100)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "[] True"
