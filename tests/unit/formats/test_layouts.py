"""Arrays that do not tell what they are: archive.toml does, and what it leaves open is never guessed."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from ecg_files import ARCHIVE_TOML, code15, npy, sph
from ecg_made import Ecg, make

from ecgbatch.records.files import Files
from ecgbatch.records.formats import hdf5, numpy_arrays
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError

TOLD = ARCHIVE_TOML.format(rate=500)


def refusal(root: Path, record: str) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(root, record)
    return caught.value


def test_without_archive_toml_it_says_what_to_write(tmp_path: Path, ecg: Ecg) -> None:
    (tmp_path / "x.npy").write_bytes(npy(ecg))
    error = refusal(tmp_path, "x.npy")
    assert error.reason is Reason.MISSING_LAYOUT
    assert "rate, units, leads" in error.detail and "archive.toml" in error.detail and 'units = "mV"' in error.detail


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (TOLD.replace("rate = 500\n", ""), "its rate"),
        (TOLD.replace('units = "mV"\n', ""), "its units"),
        (TOLD.replace("rate = 500", 'rate = "500"'), "rate in archive.toml must be a number"),
        (TOLD.replace("rate = 500", "rate = nan"), "rate in archive.toml must be a number"),
        (TOLD.replace('"mV"', '"two mV"'), 'as "mV" or "4.88 uV"'),
        (TOLD.replace('"mV"', '"mmHg"'), "is in mmHg"),
        (TOLD.replace('"mV"', "1"), "must be text"),
        (TOLD.replace('"V6"', "6"), "a list of names"),
        (TOLD.replace('"V5", "V6"', '"V5"'), "for 11 leads"),
        (TOLD + "gain = 200\n", "a key 'gain'"),
        ("rate = ", "no TOML"),
    ],
    ids=range(11),
)
def test_an_archive_toml_that_is_wrong_says_how(tmp_path: Path, ecg: Ecg, toml: str, said: str) -> None:
    (tmp_path / "x.npy").write_bytes(npy(ecg))
    (tmp_path / "archive.toml").write_text(toml)
    assert said in refusal(tmp_path, "x.npy").detail


def test_the_nearest_archive_toml_counts_and_none_above_the_archive(tmp_path: Path, ecg: Ecg) -> None:
    inner = tmp_path / "archive" / "inner"
    inner.mkdir(parents=True)
    (inner / "x.npy").write_bytes(npy(ecg))
    (tmp_path / "archive.toml").write_text(TOLD)
    assert refusal(tmp_path / "archive", "inner/x.npy").reason is Reason.MISSING_LAYOUT
    (tmp_path / "archive" / "archive.toml").write_text(TOLD.replace("500", "250"))
    slow = read(tmp_path / "archive", "inner/x.npy").signal
    (inner / "archive.toml").write_text(TOLD)
    assert not np.array_equal(read(tmp_path / "archive", "inner/x.npy").signal, slow)


def test_steps_as_units_and_leads_in_rows(tmp_path: Path, ecg: Ecg) -> None:
    np.save(tmp_path / "millivolts.npy", ecg.digital(4.88) * 0.00488)
    np.save(tmp_path / "steps.npy", ecg.digital(4.88).T)
    (tmp_path / "archive.toml").write_text(TOLD)
    wanted = read(tmp_path, "millivolts.npy").signal
    (tmp_path / "archive.toml").write_text(TOLD.replace('"mV"', '"4.88 uV"'))
    assert np.abs(read(tmp_path, "steps.npy").signal - wanted).max() < 1e-9


def test_columns_of_numbers_without_names(tmp_path: Path, ecg: Ecg) -> None:
    np.savetxt(tmp_path / "x.csv", ecg.millivolts, delimiter=";")
    np.save(tmp_path / "x.npy", ecg.millivolts)
    (tmp_path / "archive.toml").write_text(TOLD)
    assert np.abs(read(tmp_path, "x.csv").signal - read(tmp_path, "x.npy").signal).max() < 1e-9


def test_each_of_many_records_in_an_array(tmp_path: Path, ecg: Ecg) -> None:
    np.save(tmp_path / "many.npy", np.stack([ecg.millivolts, 2 * ecg.millivolts]))
    (tmp_path / "archive.toml").write_text(TOLD)
    assert list(numpy_arrays.FORMAT.members(Files(tmp_path), "many.npy")) == ["0", "1"]
    first, second = (read(tmp_path, f"many.npy::{member}").signal for member in (0, 1))
    assert np.allclose(second, 2 * first)
    for record in ("many.npy", "many.npy::2", "many.npy::-1", "many.npy::x"):
        assert refusal(tmp_path, record).reason is Reason.MISSING_RECORD


def test_hdf5_with_names_and_more_than_one_array(tmp_path: Path, ecg: Ecg) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/signals"] = np.stack([ecg.millivolts, ecg.millivolts])
        file["group/names"] = ["first", "second"]
        file["labels"] = np.zeros((2, 12))
        file["more"] = np.zeros((2, 12))
    files = Files(tmp_path)
    (tmp_path / "archive.toml").write_text(TOLD)
    assert "must name one as dataset" in refusal(tmp_path, "x.h5").detail
    assert list(hdf5.FORMAT.members(files, "x.h5")) == [None]
    (tmp_path / "archive.toml").write_text(TOLD + 'dataset = "group/signals"\n')
    assert list(hdf5.FORMAT.members(files, "x.h5")) == ["0", "1"]
    (tmp_path / "archive.toml").write_text(TOLD + 'dataset = "group/signals"\nids = "group/names"\n')
    assert list(hdf5.FORMAT.members(files, "x.h5")) == ["first", "second"]
    assert read(tmp_path, "x.h5::second").signal.shape == (1000, 12)
    (tmp_path / "archive.toml").write_text(TOLD + 'dataset = "group/none"\n')
    assert "no array 'group/none'" in refusal(tmp_path, "x.h5").detail


def test_matlab_arrays(tmp_path: Path, ecg: Ecg) -> None:
    import scipy.io

    scipy.io.savemat(tmp_path / "x.mat", {"val": ecg.digital(1).T, "fs": 500})
    assert refusal(tmp_path, "x.mat").reason is Reason.MISSING_LAYOUT
    (tmp_path / "archive.toml").write_text(TOLD.replace('"mV"', '"1 uV"'))
    np.save(tmp_path / "x.npy", ecg.digital(1))
    assert np.array_equal(read(tmp_path, "x.mat").signal, read(tmp_path, "x.npy").signal)
    scipy.io.savemat(tmp_path / "x.mat", {"val": ecg.digital(1).T, "other": np.zeros((3, 3))})
    assert "must name one as dataset" in refusal(tmp_path, "x.mat").detail


def test_the_empty_last_row_of_code15_is_no_record(tmp_path: Path) -> None:
    code15(tmp_path / "part.hdf5", [make(400)], [17])
    assert list(hdf5.FORMAT.members(Files(tmp_path), "part.hdf5")) == ["17"]
    for record in ("part.hdf5", "part.hdf5::0", "part.hdf5::18"):
        assert refusal(tmp_path, record).reason is Reason.MISSING_RECORD


def test_the_rows_of_sami_trop_by_number(tmp_path: Path) -> None:
    for name in ("exams.hdf5", "other.hdf5"):
        code15(tmp_path / name, [make(400)], [1])
        with h5py.File(tmp_path / name, "a") as file:
            del file["exam_id"]
    assert read(tmp_path, "exams.hdf5::0").signal.shape == (1000, 12)
    assert refusal(tmp_path, "other.hdf5::0").reason is Reason.MISSING_LAYOUT


def test_a_file_that_changes_while_it_is_open(tmp_path: Path, ecg: Ecg) -> None:
    code15(tmp_path / "part.hdf5", [make(400, 1), make(400, 2)], [1, 2])
    before = read(tmp_path, "part.hdf5::1")
    (tmp_path / "new.hdf5").write_bytes(b"")
    code15(tmp_path / "new.hdf5", [make(400, 2), make(400, 1)], [1, 2])
    (tmp_path / "new.hdf5").rename(tmp_path / "part.hdf5")
    assert read(tmp_path, "part.hdf5::2").sha256 == before.sha256


def test_one_array_of_half_precision_is_sph_and_none_other_is(tmp_path: Path, ecg: Ecg) -> None:
    (tmp_path / "x.h5").write_bytes(sph(ecg))
    assert read(tmp_path, "x.h5").format == "hdf5"
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["ecg"] = ecg.millivolts.T
    assert refusal(tmp_path, "y.h5").reason is Reason.MISSING_LAYOUT
