"""The README's Python, and the command for single files, as a user types them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from commands import Command
from places import REPOSITORY

from ecgbatch.records.synthetic import write_archive

[EXAMPLE] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    write_archive(tmp_path / "synthetic")
    script = tmp_path / "example.py"
    script.write_text(EXAMPLE + "print(probabilities.shape, job.state, job.scored, len(rows))\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ECGBATCH_")}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, 5) finished 64 64"


def test_single_files_are_scored_without_server_or_database(command: Command, archive: Path) -> None:
    files = [archive / "synthetic_0001.hea", archive / "synthetic_0002.dat"]
    done = command("score", *files, "--age", "50", "--sex", "female")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["file", *map(str, files)]
    assert "research use only" in done.stderr
    found = json.loads(command("score", *files, archive / "nothing", "--json", status=3).stdout)
    assert [score["path"] for score in found["scores"]] == list(map(str, files))
    assert found["failures"][0]["reason"] == "missing_header"
    assert not list(command.folder.glob("*.db"))


def test_a_files_score_is_the_one_that_run_stores(finished: Command, synthetic: Path) -> None:
    stored = finished.rows("SELECT path, norm, mi, sttc, cd, hyp, flags FROM results ORDER BY path LIMIT 8")
    found = json.loads(finished("score", "--json", *(synthetic / row["path"] for row in stored)).stdout)
    for row, score in zip(stored, found["scores"], strict=True):
        assert {name: row[name] for name in score["probabilities"]} == score["probabilities"]
        assert row["flags"] == ",".join(score["flags"])
