"""Finding an archive's records: every kind of list, whatever its faults, in flat memory."""

import lzma
import os
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from found import find_records, paths, people, write_header
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.archives.search import PassedOver
from ecgbatch.settings import EcgbatchError


def message(root: Path, manifest: Path | None = None, **options: str) -> str:
    with pytest.raises(EcgbatchError) as caught:
        paths(root, manifest, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_manifest(tmp_path: Path) -> None:
    write_header(tmp_path, "a/1")
    manifest = tmp_path / "list.csv"
    manifest.write_bytes(
        b"\xef\xbb\xbfPath,ID, SEX,Age\r\na/1.hea,1,0,56\r\n\r\n"
        b'"b,b\\2",2,F,89.5\r\n./c,3,1.0,NaN\r\nd,4\r\na/1,1,M,300\r\n'
    )
    assert people(tmp_path, manifest) == [
        ("a/1", 56.0, 0),
        ("b,b/2", 89.5, 1),
        ("c", None, 1),
        ("d", None, None),
        ("a/1", 300.0, 0),
    ]
    assert str(Archive(tmp_path, manifest).source()) == "list.csv"


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_manifest_gives_records_or_one_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        write_header(Path(folder), "r")
        manifest = Path(folder) / "list.csv"
        manifest.write_bytes(b"path,age\nr,1\n" + content)
        try:
            for record in find_records(Path(folder), manifest):
                assert record.path.encode()
                assert "\0" not in record.path
        except EcgbatchError as error:
            assert "\n" not in str(error)


def test_ptbxl_database(shared: Path, tmp_path: Path) -> None:
    with lzma.open(shared / "ptbxl/ptbxl_database.csv.xz") as table:
        (tmp_path / "ptbxl_database.csv").write_bytes(table.read())
    for path in ("records100/00000/00001_lr", "records500/00000/00001_hr"):
        write_header(tmp_path, path)
    low = people(tmp_path)
    assert len(low) in (21_799, 21_837)
    assert low[0] == ("records100/00000/00001_lr", 56.0, 1)
    assert str(Archive(tmp_path).source()) == "ptbxl_database.csv"
    assert people(tmp_path, rate="hr")[0] == ("records500/00000/00001_hr", 56.0, 1)
    assert {sex for _, _, sex in low} == {0, 1}
    assert 0 < sum(age is None for _, age, _ in low) < 100


def test_nested_records_files(tmp_path: Path) -> None:
    write_header(tmp_path, "up/outside")
    root = tmp_path / "archive"
    (root / "sub/deep").mkdir(parents=True)
    (root / "RECORDS").write_text("\ufeffa\r\n\r\nsub/\nplain/\ngone/\n../up/\n./\nb.hea\na\n", "utf-8")
    (root / "sub/RECORDS").write_text("s1\ndeep/\n")
    (root / "sub/deep/RECORDS").write_text("d1\n")
    write_header(root, "plain/p1", "#Age: 5\n")
    write_header(root, "sub/s1", "#Age: 6\n")
    assert [(path, age) for path, age, _ in people(root)] == [
        *(("a", None), ("sub/s1", 6), ("sub/deep/d1", None), ("plain/p1", 5)),
        *((path, None) for path in ("gone", "../up", "b", "a")),
    ]
    assert str(Archive(root).source()) == "RECORDS"


def test_a_listing_enters_each_folder_once(tmp_path: Path) -> None:
    for folder in ("a", "a/b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "up").symlink_to(tmp_path)
    (tmp_path / "RECORDS").write_text("r\na/\na/\n")
    (tmp_path / "a/RECORDS").write_text("r\nup/\nb/\nb/\n")
    (tmp_path / "a/b/RECORDS").write_text("r\nup/a/\nup/\n")
    write_header(tmp_path, "r")
    assert paths(tmp_path) == ["r", "a/r", "a/b/r"]


def test_odd_lines_of_records_are_in_nobodys_way(tmp_path: Path) -> None:
    write_header(tmp_path, "r")
    names = ["r", "n" * 300, "n" * 300 + "/", "d/" * 1500 + "x", "nul\0", "nul\0/", "\udcff", "  ", "x" * 50_000]
    (tmp_path / "RECORDS").write_bytes(os.fsencode("\n".join(names)))
    found = paths(tmp_path)
    assert found[:3] == ["r", "n" * 300, "n" * 300]
    assert found[4:7] == ["nul%00", "nul%00", "%FF"]
    assert len(found) == 8
    assert max(map(len, found)) < 1000


def test_records_without_line_ends_take_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "RECORDS").open("wb") as file:
        file.truncate(2 << 30)  # a hole: no disk is taken
    tracemalloc.start()
    assert "line 1 of" in message(tmp_path)
    assert "it is no list" in message(tmp_path, tmp_path / "RECORDS")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_listing_may_hold_names_as_they_are_on_disk(tmp_path: Path) -> None:
    for name in (" blank ", "back\\slash", "sub/windows", "x.hea"):
        write_header(tmp_path, name)
    (tmp_path / "RECORDS").write_text(" blank \nback\\slash\nsub\\windows\nx.hea.hea\n tidy \n")
    assert paths(tmp_path) == [" blank ", "back\\slash", "sub/windows", "x.hea", "tidy"]


def test_a_list_may_name_records_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "many.npy").touch()
    write_header(tmp_path, "odd::name")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\nmany.npy::3\nodd::name\n")
    assert paths(tmp_path, manifest) == ["many.npy::3", "odd%3A:name"]


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    assert "there is no archive" in message(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "no recording" in message(tmp_path / "file")
    assert "there is no archive" in message(tmp_path / ("n" * 300))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no records" in message(empty)
    assert "cannot read" in message(empty, tmp_path / "none.csv")
    assert "cannot read" in message(empty, empty)
    manifest = tmp_path / "list.csv"
    manifest.write_text("")
    assert "no column 'path'" in message(empty, manifest)
    manifest.write_text("record,age\na,1\n")
    assert "no column 'path'" in message(empty, manifest)
    manifest.write_text("path,age\n")
    assert "has no records" in message(empty, manifest)
    write_header(empty, "a")
    manifest.write_text("path,age\na,1\n\n,1\n")
    assert "no path on line 4" in message(empty, manifest)
    manifest.write_text("path\n" + "x" * 200_000)
    assert "cannot read" in message(empty, manifest)
    (empty / "ptbxl_database.csv").write_text("ecg_id\n1\n")
    assert "no column 'filename_lr'" in message(empty)


def test_a_list_of_another_archive_is_refused_before_its_first_record(tmp_path: Path) -> None:
    (tmp_path / "RECORDS").write_text("a\nb\n")
    with pytest.raises(EcgbatchError, match=r"RECORDS names records that are not in .* none of the first 2 is there"):
        find_records(tmp_path)
    write_header(tmp_path, "b")
    assert paths(tmp_path) == ["a", "b"]


def test_a_rate_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_header(tmp_path, "records100/1_lr")
    (tmp_path / "ptbxl_database.csv").write_text("filename_lr,filename_hr\nrecords100/1_lr,records500/1_hr\n")
    with pytest.raises(EcgbatchError, match="there is no folder records500: get it, or take --rate lr"):
        find_records(tmp_path, rate="hr")


@pytest.mark.parametrize("name", ["list.csv", "RECORDS"])
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    write_header(tmp_path, "folder/record0")
    with (tmp_path / name).open("w") as file:
        file.write("path\n" if name == "list.csv" else "")
        file.writelines(f"folder/record{number}\n" for number in range(20_000))
    find_records(tmp_path)
    passed_over = PassedOver()
    tracemalloc.start()
    records = find_records(tmp_path, tmp_path / name if name == "list.csv" else None, passed_over=passed_over)
    count = sum(1 for _ in records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 4_000_000
    assert not passed_over


def test_one_file_is_an_archive_too(tmp_path: Path) -> None:
    write_header(tmp_path, "a")
    (tmp_path / "a.dat").write_bytes(b"")
    (tmp_path / "b.xml").write_text("<RestingECG/>")
    for name in ("a.hea", "a.dat", "a"):
        archive = Archive(tmp_path / name)
        assert (archive.root, [record.path for record in archive.records()]) == (tmp_path, ["a"])
    assert paths(tmp_path / "b.xml") == ["b.xml"]
    assert "give" in message(tmp_path / "b.xml", tmp_path / "list.csv")
    np.save(tmp_path / "many.npy", np.zeros((3, 1000, 12)))
    assert paths(tmp_path / "many.npy") == ["many.npy::0", "many.npy::1", "many.npy::2"]
