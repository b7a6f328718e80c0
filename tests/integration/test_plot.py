"""What `ecgbatch plot` draws: the right leads at true scale, and whatever a file is called."""

import warnings
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from commands import Command
from wfdb_files import write

from ecgbatch.cli import main
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.records.synthetic import write_archive
from ecgbatch.viewer.paper import FIRST_SECOND, MM_PER_SECOND, lay_out, trace
from ecgbatch.viewer.sheet import DOTS_PER_INCH, MM_PER_INCH, drawable, shortened

HOSTILE = "$x_{1}$ <b>\u4e2d\n\x1b[31m%s"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic record."""
    archive = tmp_path_factory.mktemp("drawn")
    write_archive(archive, records=1)
    return archive / f"{(archive / 'RECORDS').read_text().split()[0]}.hea"


@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("PDF", b"%PDF")])
def test_each_kind_of_picture(record: Path, tmp_path: Path, suffix: str, begins: bytes) -> None:
    file = tmp_path / f"ecg.{suffix}"
    assert main(["plot", str(record), "--output", str(file), "--rows"]) == 0
    assert file.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [file]


def test_a_picture_is_of_true_size(record: Path, tmp_path: Path) -> None:
    assert main(["plot", str(record), "--output", str(tmp_path / "ecg.png"), "--raw"]) == 0
    height, width, _ = matplotlib.image.imread(tmp_path / "ecg.png").shape
    assert width / DOTS_PER_INCH * MM_PER_INCH == pytest.approx(286, abs=0.3)
    assert height < width


@pytest.mark.parametrize("in_rows", [False, True])
def test_each_lead_is_where_and_when_it_was_recorded(in_rows: bool) -> None:
    signal = np.zeros((1000, 12))
    peaks = {lead: 30 + 77 * at for at, lead in enumerate(LEADS)}
    for at, peak in enumerate(peaks.values()):
        signal[peak, at] = 1.0
    paper = lay_out(signal, in_rows)
    assert [strip.lead for strip in paper.strips] == [*LEADS, *([] if in_rows else ["II"])]
    for strip in paper.strips:
        across, up = trace(paper, strip, signal)
        assert len(across) == round(100 * (strip.stop - strip.start))
        assert across[0] == strip.x
        seconds = peaks[strip.lead] / 100
        if strip.start <= seconds < strip.stop:
            highest = int(up.argmax())
            assert across[highest] == pytest.approx(strip.x + MM_PER_SECOND * (seconds - strip.start))
            assert up[highest] - strip.y == 10
        else:
            assert (up == strip.y).all()
    assert max(strip.x + MM_PER_SECOND * (strip.stop - strip.start) for strip in paper.strips) == FIRST_SECOND + 250


def test_columns_of_a_short_record_are_whole() -> None:
    strips = lay_out(np.ones((520, 12)), in_rows=False).strips
    assert [strip.stop - strip.start for strip in strips[:12]] == pytest.approx([2.5] * 12)
    assert (strips[9].stop, strips[12].start, strips[12].stop) == pytest.approx((5.2, 0, 5.2))


@pytest.mark.parametrize(("millivolts", "gain"), [(0.0, 10), (2.0, 10), (4.0, 5), (2000.0, 10 / 1024)])
def test_large_waves_are_drawn_smaller(millivolts: float, gain: float) -> None:
    signal = np.zeros((1000, 12))
    signal[500, 3] = millivolts
    assert lay_out(signal, in_rows=False).gain == gain


def test_a_hostile_name_is_drawn_as_it_is(record: Path, tmp_path: Path) -> None:
    signal = np.round(1000 * read(record.parent, record.stem).signal).astype(int)
    write(tmp_path, signal[:520], name="r")
    (tmp_path / "r.hea").rename(tmp_path / f"{HOSTILE}.hea")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters that it cannot draw
        assert main(["plot", str(tmp_path / f"{HOSTILE}.hea"), "--output", str(tmp_path / "ecg.png")]) == 0
    assert drawable(HOSTILE) == "$x_{1}$ <b>\\u4e2d\\n\\x1b[31m%s"
    assert shortened("a" * 50 + "b" * 50, 10) == "aaaa…bbbbb"


@pytest.mark.parametrize(
    ("record_name", "output", "message"),
    [
        ("gone.hea", "ecg.png", "gone.hea: missing_header"),
        (None, "ecg.bmp", "must end with .svg, .png or .pdf"),
        (None, "nowhere/ecg.png", "cannot write nowhere/ecg.png: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    command: Command, record: Path, record_name: str | None, output: str, message: str
) -> None:
    said = command("plot", record_name or record, "--output", output, status=1).stderr
    assert message in said
    assert len(said.splitlines()) == 1


def test_score_draws_each_file(record: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "new/pictures"
    assert main(["score", str(record), "gone.hea", str(record), "--plot", str(pictures)]) == 3
    assert sorted(path.name for path in pictures.iterdir()) == [f"{record.stem}-2.png", f"{record.stem}.png"]
