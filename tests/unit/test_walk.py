"""Searching a folder that nothing lists: every header once, whatever its name, and what is passed over is told."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from found import find_records, paths, write_header

from ecgbatch.records.archives.search import LINK_OUT, OPEN_DATABASE, PassedOver
from ecgbatch.records.paths import on_disk
from ecgbatch.settings import EcgbatchError

ODD_NAMES = [b"x ", b"x", b" x", b"back\\slash", b"20:15:30 ecg", b"\xff\xfe", b"two\nlines", b"\x1b[31mred", b"a%FF",
             b"http:", b"a::b", b"x.hea", b"-rf", b"'; drop table", "心电图".encode(), b"n" * 251]  # fmt: skip


def test_walk(tmp_path: Path) -> None:
    for name in ("b", "a", "c/2", "c/1", "d/e/f/x", ".hidden/y", "d/._x"):
        write_header(tmp_path, name)
    (tmp_path / "a.dat").touch()
    assert paths(tmp_path) == ["a", "b", "c/1", "c/2", "d/e/f/x"]


def test_any_name_that_a_file_system_allows(tmp_path: Path) -> None:
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b".hea")).touch()
    found = paths(tmp_path)
    assert sorted(os.fsencode(on_disk(path)[0]) for path in found) == sorted(ODD_NAMES)
    assert all(path.encode() for path in found)


def test_each_folder_is_entered_once(tmp_path: Path) -> None:
    for name in ("c/1", "d/2", ".store/3"):
        write_header(tmp_path, name)
    for link, target in (("loop", "."), ("self", "self"), ("a", "c"), ("c/up", ".."), ("d/c", "../c"), ("e", ".store")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / ".store/up").symlink_to("../.store")
    assert paths(tmp_path) == ["c/1", "d/2", "e/3"]


@pytest.mark.parametrize("root_is_link", [False, True])
def test_links_out_of_the_archive_are_followed_only_when_asked(tmp_path: Path, root_is_link: bool) -> None:
    root = tmp_path / "archive"
    write_header(root, "in")
    write_header(tmp_path, "outside/out", "#Age: 77\n")
    (tmp_path / "outside/back").symlink_to(tmp_path)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "file.hea").symlink_to(tmp_path / "outside/out.hea")
    if root_is_link:
        (tmp_path / "alias").symlink_to(root)
        root = tmp_path / "alias"
    passed_over = PassedOver()
    found = list(find_records(root, passed_over=passed_over))
    assert [(record.path, record.age) for record in found] == [("file", None), ("in", None)]  # nothing is read of it
    assert list(passed_over) == [(LINK_OUT, 1, "link")]
    followed = paths(root, follow_links=True)
    assert sorted(set(followed)) == sorted(followed)
    assert followed[:3] == ["file", "in", "link/back/outside/out"] or "link/out" in followed


def test_an_archive_of_links_out_of_it_is_refused_with_the_way_to_follow_them(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    write_header(tmp_path, "blobs/1")
    (root / "r.hea").symlink_to("../blobs/1.hea")
    with pytest.raises(EcgbatchError, match="links that lead out of it, as r: ECGBATCH_FOLLOW_LINKS=true follows them"):
        find_records(root)
    assert paths(root, follow_links=True) == ["r"]


def test_a_walk_leaves_out_segments(tmp_path: Path) -> None:
    write_header(tmp_path, "p1", "33_layout 0\n33_0001 500\n", line="p1/2 12 100 500")
    write_header(tmp_path, "33_layout")
    write_header(tmp_path, "33_0001")
    write_header(tmp_path, "fixed", "fixed-1 500\nfixed_2 500\n", line="fixed/2 12 100 1000")
    write_header(tmp_path, "fixed_2")
    write_header(tmp_path, "other_0001")
    assert paths(tmp_path) == ["fixed", "other_0001", "p1"]


@pytest.mark.timeout(20)
def test_a_walk_is_not_stopped_by_odd_headers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hea")
    (tmp_path / "folder.hea").mkdir()
    (tmp_path / "gone.hea").symlink_to(tmp_path / "nothing")
    (tmp_path / "bytes.hea").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "hashes.hea").write_bytes(b"#" * 100_000)
    assert paths(tmp_path) == ["bytes", "folder", "gone", "hashes", "pipe"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another user's place")
@pytest.mark.parametrize("listed", [False, True])
def test_folders_that_cannot_be_read_are_passed_over_and_counted(tmp_path: Path, listed: bool) -> None:
    write_header(tmp_path, "a")
    write_header(tmp_path, "open/b")
    for name in ("lost+found", "open/closed"):
        write_header(tmp_path, f"{name}/x")
        (tmp_path / name).chmod(0)
    if listed:
        (tmp_path / "RECORDS").write_text("a\nopen/\nlost+found/\nlost+found/x\nlost+found/x/\n")
    for folder in [tmp_path, *list(tmp_path.parents)[:-2]]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from ecgbatch.records.archives.finding import Archive\n"
        "from ecgbatch.records.archives.search import PassedOver\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "passed_over = PassedOver()\n"
        "print([r.path for r in Archive(Path(sys.argv[1]), passed_over=passed_over).records()], list(passed_over))\n"
        "try: list(Archive(Path(sys.argv[1]) / 'lost+found').records())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = "['a', 'open/b', 'lost+found/x', 'lost+found/x']" if listed else "['a', 'open/b']"
    counts = [("folders that cannot be read", 2, "open/closed/" if listed else "lost+found/")]
    assert done.stdout.splitlines()[0] == f"{found} {counts}"
    assert done.stdout.splitlines()[1].startswith("EcgbatchError there is no archive at")


def test_files_of_other_formats_are_found_by_their_content_and_the_rest_is_told(tmp_path: Path) -> None:
    write_header(tmp_path, "a")
    for name in ("a.dat", "b.dat", "a.atr", "archive.toml", ".hidden.xml"):
        (tmp_path / name).write_bytes(b"\1\2")
    np.save(tmp_path / "many::of.npy", np.zeros((2, 1000, 12)))
    np.save(tmp_path / "one", np.zeros((1000, 12)))
    (tmp_path / "leads.txt").write_text("I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6\n" + ",".join("0" * 12) + "\n")
    for name in ("notes.PDF", "notes.pdf", "README"):
        (tmp_path / name).write_bytes(b"nothing")
    os.mkfifo(tmp_path / "pipe.xml")
    passed_over = PassedOver()
    found = [record.path for record in find_records(tmp_path, passed_over=passed_over)]
    assert found == ["a", "leads.txt", "many%3A:of.npy::0", "many%3A:of.npy::1", "one.npy"]
    assert sorted(passed_over) == [
        (".pdf files of no known format", 2, "notes.PDF"),
        ("files that cannot be read", 1, "pipe.xml"),
        ("other files of no known format", 1, "README"),
    ]


def test_a_database_in_use_keeps_its_locks(tmp_path: Path) -> None:
    write_header(tmp_path, "r")
    database = tmp_path / "mine.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        passed_over = PassedOver()
        assert [record.path for record in find_records(tmp_path, passed_over=passed_over)] == ["r"]
        assert list(passed_over) == [(OPEN_DATABASE, 3, "mine.db")]
        other = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (1)'); c.commit()"
        )
        subprocess.run([sys.executable, "-c", f"{other}; c.close()", database], check=True)
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert (tmp_path / "mine.db-wal").exists()  # which the last one to close takes away


def test_a_mixed_folder_of_real_files(shared: Path) -> None:
    found = paths(shared / "field")
    suffixes = {os.path.splitext(path)[1] for path in found}
    assert suffixes >= {"", ".xml", ".dcm", ".scp", ".edf", ".ecg", ".mat"}
    assert len(found) == len(set(found))
