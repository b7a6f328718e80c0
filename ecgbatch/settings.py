"""Every setting of ecgbatch, read from the environment (`ECGBATCH_…`)."""

import os
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints


class EcgbatchError(Exception):
    """An error that a user can act on; its message is one line: what is wrong and what to do."""


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The settings in force. A field `name` is set by the environment variable `ECGBATCH_NAME`."""

    database_url: str = _setting("sqlite:///ecgbatch.db", "the SQL database, SQLite or PostgreSQL")
    redis_url: str | None = _setting(None, "the Redis server; `run` starts an embedded one if unset")
    model: str | None = _setting(None, "NAME or NAME:VERSION of the model; the newest if unset")
    model_dir: Path = _setting(
        Path.home() / ".local/share/ecgbatch/models",
        "where `model add` puts models and workers find them",
    )
    device: str = _setting("cpu", "cpu or cuda")
    kernel: str = _setting("auto", "compiled, torch, or auto: compiled where it was built")
    processes: int | None = _setting(None, "worker processes; one per core on a CPU, one per GPU if unset")
    batch_size: int | None = _setting(None, "records scored at once, on a CPU 64 at most; as suits the kernel if unset")
    chunk_size: int = _setting(256, "records per message")
    queue_chunks: int = _setting(64, "chunks kept waiting in Redis at most, per queue")
    lease_seconds: int = _setting(30, "a chunk whose worker is silent for this long is given to another")
    reconcile_seconds: int = _setting(10, "how often a worker looks for lost work")
    record_seconds: int = _setting(60, "time limit for one record once it is suspected of hanging")
    chunk_seconds: int = _setting(600, "time limit for one chunk; its records are then tried one by one")
    memory_mb: int = _setting(2048, "memory that a worker process may take on top of the resident model")
    follow_links: bool = _setting(False, "true: links in an archive may lead out of it")
    flower_port: int = _setting(5555, "the port of Flower, on 127.0.0.1")
    flower_password: str | None = _setting(None, "Flower's password (user `ecgbatch`); made up if unset")


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings; raises EcgbatchError for a value that does not fit or a name that is none."""
    types_by_name = get_type_hints(Settings)
    known = {variable(f.name): f.name for f in fields(Settings)}
    values = {}
    for key, text in environment.items():
        if not key.startswith("ECGBATCH_") or text == "":
            continue
        if key not in known:
            raise EcgbatchError(f"{key} is no setting of ecgbatch; there are {', '.join(sorted(known))}")
        values[known[key]] = _parse(key, text, types_by_name[known[key]])
    return Settings(**values)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"ECGBATCH_{name.upper()}"


def _parse(key: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    if kind is bool:
        return _parse_bool(key, text)
    if kind is not int:
        return kind(text)
    if not text.isdecimal() or int(text) == 0:
        raise EcgbatchError(f"{key} must be a whole number above zero, not {text!r}")
    return int(text)


def _parse_bool(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise EcgbatchError(f"{key} must be true or false, not {text!r}")
    return text.lower() == "true"
