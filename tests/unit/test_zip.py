"""An archive that is a `.zip`: read as it was downloaded, and nothing in it leads out or takes the memory."""

import zipfile
from pathlib import Path

import pytest
from found import find_records, people

from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.records.synthetic import write_archive
from ecgbatch.settings import EcgbatchError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_archive(tmp_path / "folder", records=4)
    return tmp_path / "folder"


def zipped(folder: Path, start: str = "", without: tuple[str, ...] = ()) -> Path:
    archive = folder.parent / "archive.ZIP"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.name not in without:
                file.write(path, f"{start}{path.relative_to(folder)}")
    return archive


@pytest.mark.parametrize("start", ["", "ptb-xl-1.0.3/"])
@pytest.mark.parametrize("without", [(), ("RECORDS",)])
def test_a_zip_holds_what_its_folder_holds(folder: Path, start: str, without: tuple[str, ...]) -> None:
    archive = zipped(folder, start, without)
    found = people(archive)
    assert found == people(folder)
    assert None not in {age for _, age, _ in found}
    for path, _, _ in found:
        ours, theirs = read(archive, path), read(folder, path)
        assert ours.sha256 == theirs.sha256
        assert (ours.signal == theirs.signal).all()
        assert ours.flags == theirs.flags


def test_tables_and_folders_in_a_zip(folder: Path) -> None:
    (folder / "sub").mkdir()
    for file in folder.glob("synthetic_0001.*"):
        file.rename(folder / "sub" / file.name)
    (folder / "RECORDS").write_text("sub/\nsynthetic_0002\n")
    assert [path for path, _, _ in people(zipped(folder))] == ["sub/synthetic_0001", "synthetic_0002"]
    (folder / "ptbxl_database.csv").write_text("filename_lr,age,sex\nsub/synthetic_0001,40,1\n")
    assert people(zipped(folder)) == [("sub/synthetic_0001", 40, 1)]


def test_members_that_lead_out_are_not_there(folder: Path) -> None:
    archive = zipped(folder)
    link = zipfile.ZipInfo("link.hea")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        for name in ("../out.hea", "/etc/absolute.hea", "a/../../b.hea", "c\\..\\d.hea"):
            file.writestr(name, "r 12 100 1000\n")
        file.writestr(link, "/etc/passwd")
        file.writestr("RECORDS", "../out\n/etc/absolute\na/../../b\nlink\nsynthetic_0001\n")
    assert [path for path, _, _ in people(archive)][-1] == "synthetic_0001"
    for path, reason in {"../out": Reason.UNSAFE_PATH, "link": Reason.NOT_A_FILE, "b": Reason.MISSING_HEADER}.items():
        with pytest.raises(RecordError) as caught:
            read(archive, path)
        assert caught.value.reason == reason


def test_a_damaged_member_harms_only_itself(folder: Path) -> None:
    archive = zipped(folder)
    with zipfile.ZipFile(archive) as file:
        at = file.getinfo("synthetic_0002.dat").header_offset
    content = bytearray(archive.read_bytes())
    content[at + 100 : at + 200] = b"\xff" * 100
    archive.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read(archive, "synthetic_0002")
    assert caught.value.reason == Reason.UNREADABLE_SIGNAL
    assert read(archive, "synthetic_0003").signal.shape == (1000, 12)


def test_a_bomb_is_refused(folder: Path) -> None:
    archive = folder.parent / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file, file.open("r.hea", "w") as header:
        for _ in range(8):
            header.write(b"#" * (1 << 20))
    with pytest.raises(RecordError) as caught:
        read(archive, "r")
    assert caught.value.reason == Reason.TOO_LARGE


def test_what_is_no_zip_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(b"PK nothing")
    with pytest.raises(EcgbatchError, match=r"cannot be read as a \.zip"):
        find_records(tmp_path / "archive.zip")
