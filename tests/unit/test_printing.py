"""What commands print: any name on one line, on any terminal; JSON exact."""

import io
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from terminal import in_terminal

from ecgbatch.printing import duration, print_csv, print_mapping, print_note, print_rows, printable, say

HOSTILE = "a\x1b[31mred\nnext\r\x07\t\u202eback \udcff é"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.hea", "plain name.hea"),
        ("é ß 心电图", "é ß 心电图"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("C:\\ecg", "C:\\ecg"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text, io.TextIOWrapper(io.BytesIO(), "utf-8")) == shown


def test_letters_that_the_terminal_lacks_are_escaped() -> None:
    assert printable("é心", io.TextIOWrapper(io.BytesIO(), "ascii")) == r"\xe9\u5fc3"
    assert printable("é心", io.TextIOWrapper(io.BytesIO(), "latin-1")) == r"é\u5fc3"


def test_every_way_to_print_takes_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    print_note(HOSTILE)
    print_rows([HOSTILE], [[HOSTILE]])
    print_mapping({HOSTILE: HOSTILE})
    captured = capsys.readouterr()
    for line in (captured.out + captured.err).split("\n"):
        assert line.isprintable()
    assert captured.out.count("\n") == 4


def test_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(["path"], [[HOSTILE]], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"path": HOSTILE}]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_errors_reach_any_terminal(encoding: str) -> None:
    code = "import sys; from ecgbatch.cli import main\nsys.exit(main(['enqueue', 'no\\x1b[31m\\n\\udcff\\u00e9']))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"ecgbatch: there is no archive at /")
    assert rb"/no\x1b[31m\n\udcff" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_terminal_shows_a_table_that_fits() -> None:
    script = (
        "from ecgbatch.printing import print_rows;"
        "print_rows(['mi', 'path'], [(0.25, 'a/' * 60 + '[red]\\x1b[31m'), (None, 'b')])"
    )
    lines = in_terminal([sys.executable, "-c", script], 50)
    assert max(map(len, lines)) <= 50
    assert "".join("".join(lines).split()).count("a/") == 60
    assert r"[red]\x1b[31m" in "".join("".join(lines).split())


def test_csv_has_numbers_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["a,b\n", 0.123456789012, None, datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=1)))]
    print_csv(["path", "mi", "age", "at"], iter([row]))
    assert capsys.readouterr().out == 'path,mi,age,at\n"a,b\n",0.123456789012,,2026-01-02 02:04:00\n'


def test_csv_is_utf_8_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    print_csv(["path"], [["心"]])
    sys.stdout.flush()
    assert written.getvalue().decode() == "path\n心\n"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (3900, 123.4, 8, -3540)] == ["1 h 05 min", "2 min 03 s", "8 s", "0 s"]
