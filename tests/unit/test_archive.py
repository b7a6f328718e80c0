"""Finding an archive's records: every kind of list, whatever its faults, in flat memory."""

import csv
import os
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.records.archive import ArchiveRecord, describe, find_records
from ecgbatch.settings import EcgbatchError


def header(root: Path, path: str, comments: str = "", line: str = "r 12 100 1000") -> None:
    file = root / f"{path}.hea"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{line}\n{comments}")


def paths(root: Path, manifest: Path | None = None) -> list[str]:
    return [record.path for record in find_records(root, manifest)]


def test_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_bytes(
        b"\xef\xbb\xbfPath,ID, SEX,Age\r\na/1.hea,1,0,56\r\n\r\n"
        b'"b,b\\2",2,F,89.5\r\n./c,3,1.0,NaN\r\nd,4\r\na/1,1,M,300\r\n'
    )
    assert list(find_records(tmp_path, manifest)) == [
        ArchiveRecord("a/1", 56.0, 0),
        ArchiveRecord("b,b/2", 89.5, 1),
        ArchiveRecord("c", None, 1),
        ArchiveRecord("d", None, None),
        ArchiveRecord("a/1", 300.0, 0),
    ]
    assert describe(tmp_path, manifest) == str(manifest)


def test_a_manifest_needs_only_paths(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\na\nb\n")
    assert list(find_records(tmp_path, manifest)) == [("a", None, None), ("b", None, None)]


@settings(max_examples=200, deadline=None)
@given(cells=st.tuples(st.text(max_size=9), st.text(max_size=9)))
def test_any_age_and_sex_are_understood_or_missing(cells: tuple[str, str]) -> None:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "list.csv"
        with manifest.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows([("path", "age", "sex"), ("r", *cells)])
        (record,) = find_records(Path(folder), manifest)
        assert record.age is None or abs(record.age) < 1e9
        assert record.sex in (None, 0, 1)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_manifest_gives_records_or_one_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "list.csv"
        manifest.write_bytes(b"path,age\n" + content)
        try:
            for record in find_records(Path(folder), manifest):
                assert record.path.encode()
                assert "\0" not in record.path
        except EcgbatchError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        *(("56", 56), ("56.0", 56), (" 7 y", 7), ("300", 300), ("-1", -1)),
        *((text, None) for text in ("", "nan", "abc", "inf", "6 months", "1e999", ">89")),
    ],
)
@pytest.mark.parametrize("source", ["manifest", "comment"])
def test_ages(tmp_path: Path, age: str, expected: float | None, source: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,age\nr,{age}\n")
    header(tmp_path, "r", f"#Age: {age}\n")
    (record,) = find_records(tmp_path, manifest if source == "manifest" else None)
    assert record.age == expected


@pytest.mark.parametrize(
    ("sex", "expected"),
    [("0", 0), ("0.0", 0), ("M", 0), ("Male", 0), ("1", 1), ("f", 1), ("Female", 1), ("2", None), ("", None)],
)
def test_sexes(tmp_path: Path, sex: str, expected: int | None) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,sex\nr,{sex}\n")
    assert next(find_records(tmp_path, manifest)).sex == expected


def test_ptbxl_database(ptbxl_fold9: Path) -> None:
    low = list(find_records(ptbxl_fold9))
    assert len(low) == 2193
    assert low[0] == ArchiveRecord("records100/00000/00008_lr", 48.0, 0)
    assert describe(ptbxl_fold9) == "ptbxl_database.csv"
    high = list(find_records(ptbxl_fold9, rate="hr"))
    assert high[0] == ArchiveRecord("records500/00000/00008_hr", 48.0, 0)
    assert {record.sex for record in low} == {0, 1}
    assert sum(record.age is None for record in low) == 11


@pytest.mark.parametrize(
    ("comments", "age", "sex"),
    [
        ("#Age: 56\n#Sex: Female\n#Dx: 1,2\n", 56, 1),
        ("# Age: 56\n# Sex: M\n", 56, 0),
        ("# age: 81\r\n# sex: female\r\n", 81, 1),
        ("#<age>: 81  <sex>: M  <diagnoses>: none\n", 81, 0),
        ("#Age: NaN\n#Sex: Unknown\n", None, None),
        ("#Age:\n#Sex:\n", None, None),
        ("#Dosage: 5\n", None, None),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_comments(tmp_path: Path, comments: str, age: float | None, sex: int | None, listed: bool) -> None:
    header(tmp_path, "r", comments)
    if listed:
        (tmp_path / "RECORDS").write_text("r\n")
    assert list(find_records(tmp_path)) == [("r", age, sex)]


def test_nested_records_files(tmp_path: Path) -> None:
    header(tmp_path, "up/outside")
    root = tmp_path / "archive"
    (root / "sub/deep").mkdir(parents=True)
    (root / "RECORDS").write_text("\ufeffa\r\n\r\nsub/\nplain/\ngone/\n../up/\n./\nb.hea\na\n", "utf-8")
    (root / "sub/RECORDS").write_text("s1\ndeep/\n")
    (root / "sub/deep/RECORDS").write_text("d1\n")
    header(root, "plain/p1", "#Age: 5\n")
    header(root, "sub/s1", "#Age: 6\n")
    expected = ["a", "sub/s1", "sub/deep/d1", "plain/p1", "gone", "../up", "b", "a"]
    assert paths(root) == expected
    assert [r.age for r in find_records(root)] == [None, 6, None, 5, None, None, None, None]
    assert describe(root) == "RECORDS"


def test_walk(tmp_path: Path) -> None:
    for name in ("b", "a", "c/2", "c/1", "d/e/f/x", ".hidden/y", "d/._x"):
        header(tmp_path, name)
    (tmp_path / "a.dat").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "z").symlink_to(tmp_path / "c")
    assert paths(tmp_path) == ["a", "b", "c/1", "c/2", "d/e/f/x", "z/1", "z/2"]
    assert describe(tmp_path) == "a search for .hea files"


def test_a_walk_leaves_out_segments(tmp_path: Path) -> None:
    header(tmp_path, "p1", "33_layout 0\n33_0001 500\n", line="p1/2 12 100 500")
    header(tmp_path, "33_layout")
    header(tmp_path, "33_0001")
    header(tmp_path, "fixed", "fixed-1 500\nfixed_2 500\n", line="fixed/2 12 100 1000")
    header(tmp_path, "fixed_2")
    header(tmp_path, "other_0001")
    assert paths(tmp_path) == ["fixed", "other_0001", "p1"]


@pytest.mark.timeout(20)
def test_a_walk_is_not_stopped_by_odd_headers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hea")
    (tmp_path / "folder.hea").mkdir()
    (tmp_path / "gone.hea").symlink_to(tmp_path / "nothing")
    (tmp_path / "bytes.hea").write_bytes(bytes(range(256)) * 100)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.hea")).touch()
    assert paths(tmp_path) == ["bytes", "folder", "gone", "pipe", "\N{REPLACEMENT CHARACTER}"]


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    def message(root: Path, manifest: Path | None = None) -> str:
        with pytest.raises(EcgbatchError) as caught:
            paths(root, manifest)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no archive" in message(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "not a folder" in message(tmp_path / "file")
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
    manifest.write_text("path,age\na,1\n\n,1\n")
    assert "no path on line 4" in message(empty, manifest)
    manifest.write_text("path\n" + "x" * 200_000)
    assert "cannot read" in message(empty, manifest)
    (empty / "ptbxl_database.csv").write_text("ecg_id\n1\n")
    assert "no column 'filename_lr'" in message(empty)


def test_faults_of_a_source_show_before_the_first_record(tmp_path: Path) -> None:
    with pytest.raises(EcgbatchError):
        find_records(tmp_path / "none")
    with pytest.raises(EcgbatchError):
        find_records(tmp_path, tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["list.csv", "RECORDS"])
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("w") as file:
        file.write("path\n" if name == "list.csv" else "")
        file.writelines(f"folder/record{number}\n" for number in range(100_000))
    tracemalloc.start()
    count = sum(1 for _ in find_records(tmp_path, tmp_path / name if name == "list.csv" else None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 1_000_000
