"""An archive behind a URL: listed, read and scored as its folder is, many files at a time."""

import time
from pathlib import Path

import pytest
from commands import Command
from found import find_records, people
from http_archive import served
from s3_archive import s3

from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.records.synthetic import write_archive
from ecgbatch.settings import EcgbatchError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_archive(tmp_path / "served/data base", records=8)
    return tmp_path / "served/data base"


@pytest.mark.parametrize("listed", [True, False])
def test_a_url_holds_what_its_folder_holds(folder: Path, listed: bool) -> None:
    odd = folder / "50% #1?.hea"
    odd.write_text((folder / "synthetic_0001.hea").read_text())
    with (folder / "RECORDS").open("a") as records:
        records.write("50% #1?\ngone\n")
    if not listed:
        (folder / "RECORDS").unlink()
    with served(folder.parent) as url:
        root = Path(f"{url}/data%20base")
        assert people(root) == people(folder)
        for path in ("synthetic_0002", "50% #1?"):
            ours, theirs = read(root, path), read(folder, path)
            assert ours.sha256 == theirs.sha256
            assert (ours.signal == theirs.signal).all()
        (folder / "synthetic_0003.dat").unlink()
        for path, reason in {
            "gone": Reason.MISSING_HEADER,
            "synthetic_0003": Reason.MISSING_SIGNAL_FILE,
            "../up": Reason.UNSAFE_PATH,
        }.items():
            with pytest.raises(RecordError) as caught:
                read(root, path)
            assert caught.value.reason == reason


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    with served(tmp_path) as url:
        pass
    with pytest.raises(EcgbatchError, match=f"there is no archive at {url}"):
        find_records(Path(url))
    with pytest.raises(EcgbatchError, match="a password must not be in a URL"):
        find_records(Path("https://me:secret@127.0.0.1/archive"))


def test_round_trips_are_made_at_the_same_time(tmp_path: Path) -> None:
    write_archive(tmp_path, records=1)
    header = (tmp_path / "synthetic_0001.hea").read_text()
    for n in range(200):
        (tmp_path / f"r{n}.hea").write_text(header)
    (tmp_path / "RECORDS").write_text("".join(f"r{n}\n" for n in range(200)))
    with served(tmp_path, seconds=0.2) as url:
        began = time.monotonic()
        assert len(people(Path(url))) == 200
        assert time.monotonic() - began < 40  # as long as they take one after the other


def test_an_archive_behind_a_url_is_scored(command: Command, folder: Path) -> None:
    (folder / "index.html").write_text("no list of what is here")
    with served(folder, seconds=0.05) as url:
        command("run", url)
    rows = command.rows("SELECT path, age, root FROM recordings JOIN archives ON archives.id = archive_id")
    assert len(rows) == 8
    assert {row["root"] for row in rows} == {url}
    assert command.rows("SELECT count(*) AS n FROM predictions") == [{"n": 8}]


@pytest.mark.parametrize("listed", [True, False])
def test_a_bucket_holds_what_its_folder_holds(command: Command, folder: Path, listed: bool) -> None:
    (folder / "50% #1?+é.hea").write_text((folder / "synthetic_0001.hea").read_text())
    with (folder / "RECORDS").open("a") as records:
        records.write("50% #1?+é\n")
    if not listed:
        (folder / "RECORDS").unlink()
    with s3(folder.parent) as environment:
        command.environment |= environment
        command("run", "s3://bucket/data base")
    rows = command.rows("SELECT path, age, sex FROM results")
    assert sorted((row["path"], row["age"], row["sex"]) for row in rows) == sorted(people(folder))
    assert command.rows("SELECT root FROM archives") == [{"root": "s3://bucket/data base"}]
