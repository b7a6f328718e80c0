"""Age and sex: from tables and comments, in the ways that people write them, never by a guess."""

import csv
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from found import find_records, people, write_header
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.archives.search import PassedOver
from ecgbatch.records.formats.wfdb_header import split
from ecgbatch.settings import EcgbatchError


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        *(("56", 56), ("56.0", 56), (" 7 y", 7), ("300", 300), ("-1", -1), ("40 years", 40)),
        *((text, None) for text in ("", "nan", "abc", "inf", "6 months", "1e999", ">89", "40-50")),
    ],
)
@pytest.mark.parametrize("source", ["manifest", "comment"])
def test_ages(tmp_path: Path, age: str, expected: float | None, source: str) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,age\nr,{age}\n")
    write_header(tmp_path, "r", f"#Age: {age}\n")
    assert people(tmp_path, manifest if source == "manifest" else None) == [("r", expected, None)]


@pytest.mark.parametrize(
    ("comments", "age", "sex"),
    [
        ("#Age: 56\n#Sex: Female\n#Dx: 1,2\n", 56, 1),
        ("# Age: 56\n# Sex: M\n", 56, 0),
        ("# age: 81\r\n# sex: female\r\n", 81, 1),
        ("#<age>: 81  <sex>: M  <diagnoses>: none\n", 81, 0),
        ("# <age>: 65 <sex>: F <diagnoses> MI\n", 65, 1),
        ("# Age: 62 Sex: M\n", 62, 0),
        ("# age 40\n# sex male\n", 40, 0),
        ("# Patient age 40, gender Female\n", 40, 1),
        ("# 40 y male\n", 40, 0),
        ("# 40 years old, Female\n", 40, 1),
        ("# 40yo F\n", 40, 1),
        ("#Age: NaN\n#Sex: Unknown\n", None, None),
        ("#Age:\n#Sex:\n", None, None),
        ("#Dosage: 5\n", None, None),
        ("# average 40\n", None, None),
        ("# age 12 leads\n", None, None),
        ("# age group 3\n", None, None),
        ("# sex and age not known\n", None, None),
        ("# 40 M 5\n", None, None),
        ("# 40 mV male\n", None, None),
    ],
)
def test_comments(tmp_path: Path, comments: str, age: float | None, sex: int | None) -> None:
    write_header(tmp_path, "r", comments)
    assert people(tmp_path) == [("r", age, sex)]


@pytest.mark.parametrize(
    "piece", ["#", "# age", "# age 1", "#\n", "# 1 y", "# 40 years ", " ", "1", "\t", "# sex:  ", "# 1 y old "]
)
def test_comments_are_understood_in_time_that_grows_as_they_do(piece: str) -> None:
    def seconds(text: str) -> float:
        began = time.process_time()
        from_comments(split(text.encode())[1])
        return time.process_time() - began

    assert seconds("# age " + piece * (400_000 // len(piece))) < 5  # a square would take hours


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("sex", {"0": 0, "0.0": 0, "M": 0, " male ": 0, "1": 1, "f": 1, "Female": 1, "": None, "unknown": None}),
        ("Sex", {"0": 0, "1.0": 1}),
        ("is_male", {"True": 0, "1": 0, "true": 0, "False": 1, "0": 1, "": None}),
        ("is_female", {"True": 1, "1": 1, "False": 0, "0": 0}),
        ("gender", {"M": 0, "F": 1, "nan": None}),
    ],
)  # fmt: skip
def test_sexes(tmp_path: Path, column: str, values: dict[str, int | None]) -> None:
    write_header(tmp_path, "r")
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,{column}\n" + "".join(f"r,{value}\n" for value in values))
    assert [sex for _, _, sex in people(tmp_path, manifest)] == list(values.values())


@pytest.mark.parametrize(("column", "value"), [("sex", "2"), ("gender", "0"), ("Geschlecht", "1"), ("is_male", "2")])
def test_a_number_that_may_mean_either_is_an_error_before_anything_is_taken(
    tmp_path: Path, column: str, value: str
) -> None:
    write_header(tmp_path, "r")
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,{column}\n" + "r,\n" * 500 + f"r,{value}\n")
    with pytest.raises(EcgbatchError, match=f"line 502: it cannot be told what {value} means in the column '{column}'"):
        find_records(tmp_path, manifest, columns={"sex": column})


def test_columns_of_ones_own(tmp_path: Path) -> None:
    write_header(tmp_path, "r")
    manifest = tmp_path / "list.csv"
    manifest.write_text("ID,FileName,Age_Years,is_Male\n1,r,40,True\n")
    columns = {"path": "filename", "age": "age_years", "sex": "IS_MALE"}
    assert people(tmp_path, manifest, columns=columns) == [("r", 40, 0)]
    with pytest.raises(EcgbatchError, match="has no column 'path': it has ID, FileName, Age_Years, is_Male; name one"):
        find_records(tmp_path, manifest)
    with pytest.raises(EcgbatchError, match="no column 'alter'"):
        find_records(tmp_path, manifest, columns={"path": "FileName", "age": "alter"})
    with pytest.raises(EcgbatchError, match="names path, age, sex, not sx"):
        find_records(tmp_path, manifest, columns={"sx": "is_male"})
    with pytest.raises(EcgbatchError, match="needs a table"):
        find_records(tmp_path, columns={"age": "years"})


def test_tables_that_archives_bring(tmp_path: Path) -> None:
    for name in ("101", "102"):
        write_header(tmp_path, name, "#Age: 1\n")
    (tmp_path / "record_list.csv").write_text("study_id,path\n1,101\n2,102\n")
    assert people(tmp_path) == [("101", None, None), ("102", None, None)]
    (tmp_path / "RECORDS").write_text("101\n102\n")
    assert people(tmp_path) == [("101", 1, None), ("102", 1, None)]  # the headers tell more than the table
    (tmp_path / "record_list.csv").write_text("study_id,path,age,gender\n1,101,50,F\n")
    assert people(tmp_path) == [("101", 50, 1)]
    (tmp_path / "exams.csv").write_text("exam_id,age,is_male,trace_file\n102,60,False,exams_part1.hdf5\n")
    assert people(tmp_path) == [("102", 60, 1)]


def test_exams_are_rows_of_hdf5_files(tmp_path: Path) -> None:
    (tmp_path / "exams_part1.hdf5").touch()
    exams = tmp_path / "exams.csv"
    exams.write_text("exam_id,age,is_male,trace_file\n7,60,False,exams_part1.hdf5\n8,61,True,exams_part2.hdf5\n")
    passed_over = PassedOver()
    found = list(find_records(tmp_path, passed_over=passed_over))
    assert [(record.path, record.age, record.sex) for record in found] == [("exams_part1.hdf5::7", 60, 1)]
    assert list(passed_over) == [("exams whose file exams_part2.hdf5 is not there", 1, "8")]
    exams.write_text("exam_id,age,is_male\n7,60,False\n8,61,True\n")
    (tmp_path / "exams.hdf5").touch()
    assert people(tmp_path) == [("exams.hdf5::0", 60, 1), ("exams.hdf5::1", 61, 0)]


@settings(max_examples=100, deadline=None)
@given(cells=st.tuples(st.text(max_size=9), st.text("MFmfale019. ", max_size=9)))
def test_any_age_and_sex_are_understood_or_missing_or_one_line(cells: tuple[str, str]) -> None:
    with TemporaryDirectory() as folder:
        write_header(Path(folder), "r")
        manifest = Path(folder) / "list.csv"
        with manifest.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows([("path", "age", "sex"), ("r", *cells)])
        try:
            (record,) = find_records(Path(folder), manifest)
        except EcgbatchError as error:
            assert "cannot be told" in str(error)
        else:
            assert record.age is None or abs(record.age) < 1e9
            assert record.sex in (None, 0, 1)
