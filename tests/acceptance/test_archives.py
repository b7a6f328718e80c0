"""Archives as they come: any name, links, folders that are closed, from the search to the rows of SQL."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Command

from ecgbatch.records.paths import on_disk
from ecgbatch.records.synthetic import write_archive

NAMES = [b"x", b"x ", b"back\\slash", b"20:15:30 ecg", b"\xff\xfe", b"two\nlines", b"\x1b[31mred", b"a%FF", b"a::b",
         "心电图 é".encode()]  # fmt: skip


@pytest.fixture
def odd_archive(tmp_path: Path) -> Path:
    """An archive of one record under many names, one of them in a folder too deep for any index, one linked away."""
    write_archive(tmp_path / "one", records=1)
    source = tmp_path / "one/synthetic_0001"
    root = tmp_path / os.fsdecode(b"archive \xff")
    deep = root.joinpath(*["d" * 250] * 11)

    for folder in (root, deep):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{source}.dat", folder)
    for name in NAMES:
        shutil.copy(f"{source}.hea", Path(os.fsdecode(os.fsencode(root) + b"/" + name + b".hea")))
    shutil.copy(f"{source}.hea", deep / "deep.hea")
    (root / "away.hea").symlink_to(f"{source}.hea")
    (root / "data_away.hea").write_text(Path(f"{source}.hea").read_text().replace("synthetic_0001.dat", "away.dat"))
    (root / "away.dat").symlink_to(f"{source}.dat")
    return root


def test_any_name_is_found_stored_scored_and_shown(services: Command, odd_archive: Path) -> None:
    services("run", odd_archive, status=3)
    rows = services.rows("SELECT path, norm FROM results")
    assert sorted(os.fsencode(on_disk(row["path"])[0]) for row in rows) == sorted(NAMES)
    assert len({row["norm"] for row in rows}) == 1
    failed = services.rows("SELECT path, reason FROM failures JOIN recordings ON id = recording_id")
    assert {(row["path"][:9], row["reason"]) for row in failed} == {
        (path, "unsafe_path") for path in ("away", "data_away", "d" * 9)
    }
    services.environment["PYTHONIOENCODING"] = "ascii"
    with services.start("query", "--sql", "SELECT archive, path FROM results", stdout=subprocess.PIPE) as process:
        table = process.communicate()[0]
    assert process.returncode == 0
    assert len(table.splitlines()) == len(NAMES) + 1
    assert table.isascii()
    assert "\x1b" not in table
    assert r"two\nlines" in table


def test_a_zip_is_scored_as_it_was_downloaded(command: Command, tmp_path: Path) -> None:
    write_archive(tmp_path / "download/archive-1.0", records=8)
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "download")
    command("run", archive)
    rows = command.rows("SELECT archive, path, age FROM results ORDER BY path")
    assert [row["path"] for row in rows] == [f"synthetic_{n:04d}" for n in range(1, 9)]
    assert {row["archive"] for row in rows} == {"archive.zip"}
    assert None not in {row["age"] for row in rows}


def test_a_dry_run_says_what_is_there_and_touches_nothing(command: Command, odd_archive: Path, tmp_path: Path) -> None:
    (odd_archive / "notes.pdf").touch()
    (odd_archive / "folder").symlink_to(tmp_path)
    for verb in ("run", "enqueue"):
        said = " ".join(command(verb, odd_archive, "--dry-run").stdout.split())
        assert "records from a search through the folder records 13 with age 12 with sex 12 looked into all of" in said
        assert "wfdb, 100 Hz, 10 s 11 unreadable: unsafe_path 2" in said
        assert "passed over: .pdf files of no known format 1, as notes.pdf" in said
        assert "passed over: links that lead out of the archive (ECGBATCH_FOLLOW_LINKS=true follows them) 1" in said
    assert not list(tmp_path.glob("*.db"))
    assert "needs an ARCHIVE" in command("run", "--dry-run", status=2).stderr


def test_what_has_no_age_or_sex_and_what_is_passed_over_is_said(services: Command, archive: Path) -> None:
    for header in archive.glob("*.hea"):
        header.write_text("\n".join(line for line in header.read_text().splitlines() if "Age" not in line))
    (archive / "RECORDS").unlink()
    (archive / "notes.txt").touch()
    (archive.parent / "ptbxl_database.csv").write_text("filename_lr,age,sex\n")
    said = services("enqueue", archive).stderr
    assert "of 64 records 64 have no age and 0 no sex in a search through the folder" in said
    assert f"{archive.parent / 'ptbxl_database.csv'} may tell them: give its folder as the archive" in said
    assert "passed over: 1 .txt files of no known format, as notes.txt" in said
