"""`ecgbatch doctor` says what is well, and what to do about what is not."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command

from ecgbatch.models.kernels import compiled

NOT_BUILT = """
import sys
for name in ("models.kernels._kernel", "records._reader"):
    sys.modules[f"ecgbatch.{name}"] = None  # importing it fails, as where it is not there
"""


def findings(command: Command, status: int = 0) -> dict[str, dict[str, Any]]:
    rows = json.loads(command("doctor", "--json", status=status).stdout)
    return {row["what"]: row for row in rows}


def test_what_is_there_is_well(services: Command) -> None:
    found = findings(services)
    assert list(found) == ["database", "redis", "model", "kernel", "reading", "device", "versions"]
    assert {row["well"] for row in found.values()} == {"yes"}
    assert found["redis"]["finding"].endswith("answers")
    assert "xlstm-ecg" in found["model"]["finding"]
    assert "celery" in found["versions"]["finding"]


def test_passwords_are_not_shown(command: Command, redis_url: str) -> None:
    command.environment["ECGBATCH_REDIS_URL"] = redis_url.replace("redis://", "redis://:hunter2@")
    command.environment["ECGBATCH_DATABASE_URL"] = "postgresql://ecgbatch:hunter2@127.0.0.1:1/ecgbatch"
    assert "hunter2" not in command("doctor", status=1).stdout


@pytest.mark.parametrize(
    ("setting", "value", "what", "advice"),
    [
        ("REDIS_URL", "redis://127.0.0.1:{closed}", "redis", "start it, or set ECGBATCH_REDIS_URL"),
        ("DATABASE_URL", "postgresql://e@127.0.0.1:{closed}/e", "database", "ECGBATCH_DATABASE_URL"),
        ("DATABASE_URL", "sqlite:////no/such/folder/e.db", "database", "/no/such/folder"),
        ("MODEL", "no-such-model", "model", "there are: xlstm-ecg"),
    ],
)
def test_what_is_missing_is_named_and_nothing_else_suffers(
    command: Command, setting: str, value: str, what: str, advice: str
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        command.environment[f"ECGBATCH_{setting}"] = value.format(closed=taken.getsockname()[1])
        found = findings(command, status=1)
    assert [row["what"] for row in found.values() if row["well"] != "yes"] == [what]
    assert advice in found[what]["finding"]
    assert "\n" not in found[what]["finding"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(command: Command) -> None:
    command.environment["ECGBATCH_DEVICE"] = "cuda"
    found = findings(command, status=1)
    assert "ECGBATCH_DEVICE=cpu" in found["device"]["finding"]
    assert found["kernel"]["finding"] == "plain torch, as set"


@pytest.mark.skipif(not compiled.available(), reason="the compiled kernel is not built")
def test_the_compiled_parts_show(command: Command) -> None:
    found = findings(command)
    assert found["kernel"]["finding"].startswith(f"compiled, {compiled.instructions()}")
    assert found["reading"]["finding"].startswith("compiled")


def test_without_the_compiled_parts_it_says_what_a_compiler_would_bring(command: Command, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOT_BUILT)
    command.environment["PYTHONPATH"] = str(tmp_path)
    found = findings(command)
    for what in ("kernel", "reading"):
        assert found[what]["well"] == "yes"
        assert "C++ compiler" in found[what]["finding"]
    command.environment["ECGBATCH_KERNEL"] = "compiled"
    assert "install a C++ compiler" in findings(command, status=1)["kernel"]["finding"]
