"""Every setting of ecgbatch, read from the environment (`ECGBATCH_…`)."""

import os
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ecgbatch import urls

PREFIX = "ECGBATCH_"
OF_KUBERNETES = re.compile(r"\w*_SERVICE_(HOST|PORT(_\w+)?)|\w*PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
"""Variables that Kubernetes sets in each container for a service whose name begins with `ecgbatch`."""
ADDRESS_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://.*")
"""What it puts into NAME_PORT, which may be the name of a setting."""
LONGEST_PASSWORD = 4096
REDIS = ("redis://", "rediss://", "redis+socket://")


class EcgbatchError(Exception):
    """An error that a user can act on; its message is one line: what is wrong and what to do."""


def _setting(default: Any, meaning: str, example: str = "") -> Any:
    return field(default=default, metadata={"meaning": meaning, "example": example})


@dataclass(frozen=True)
class Settings:
    """The settings in force. A field `name` is set by the environment variable `ECGBATCH_NAME`."""

    database_url: str = _setting(
        "sqlite:///ecgbatch.db",
        "the SQL database, SQLite or PostgreSQL",
        example="sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME (needs ecgbatch[postgresql])",
    )
    database_password_file: Path | None = _setting(None, "a file with the database's password; goes before the URL's")
    redis_url: str | None = _setting(
        None, "the Redis server; `run` starts an embedded one if unset", example="redis://USER:PASSWORD@HOST:6379/0"
    )
    redis_password_file: Path | None = _setting(None, "a file with Redis's password; goes before the URL's")
    model: str | None = _setting(None, "NAME or NAME:VERSION of the model; the one of `model use` if unset")
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
    lease_seconds: int = _setting(30, "a chunk whose worker, or message, is gone for this long is given to another")
    reconcile_seconds: int = _setting(10, "how often a worker looks for lost work")
    record_seconds: int = _setting(60, "time limit for one record once it is suspected of hanging")
    chunk_seconds: int = _setting(600, "time limit for one chunk; its records are then tried one by one")
    memory_mb: int = _setting(2048, "memory that a worker process may take on top of the resident model")
    min_seconds: float = _setting(5.0, "records shorter than this are not scored")
    follow_links: bool = _setting(False, "true: links in an archive may lead out of it")
    refuse: str | None = _setting(None, "flags, separated by commas, with which a record fails instead of being scored")
    log_format: str = _setting("text", "what workers log: text, or json, a line each")
    flower_address: str = _setting("127.0.0.1", "the address that Flower listens on")
    flower_port: int = _setting(5555, "the port of Flower")
    flower_password: str | None = _setting(None, "Flower's password (user `ecgbatch`); made up if unset")
    flower_password_file: Path | None = _setting(None, "a file with Flower's password")
    flower_url_prefix: str | None = _setting(None, "the path under which a proxy shows Flower")
    flower_database: Path | None = _setting(None, "the file where Flower keeps what it saw; it forgets if unset")
    flower_read_only: bool = _setting(False, "true: Flower only shows, and changes nothing")
    app_address: str = _setting(
        "127.0.0.1", "the address that the app listens on; one that others reach needs a password"
    )
    app_port: int = _setting(8501, "the port of the app")
    app_password: str | None = _setting(None, "the app's password (user `ecgbatch`)")
    app_password_file: Path | None = _setting(None, "a file with the app's password")

    def __post_init__(self) -> None:
        """Makes the servers' addresses exact. Raises EcgbatchError for one that cannot be."""
        if not self.database_url.startswith("sqlite"):
            self._complete("database_url", self.database_password_file)
        if self.redis_url is not None:
            if not self.redis_url.startswith(REDIS):
                raise EcgbatchError(f"ECGBATCH_REDIS_URL must begin with {', '.join(REDIS)}")
            self._complete("redis_url", self.redis_password_file)
        if self.flower_password_file is not None:
            object.__setattr__(self, "flower_password", _password(self.flower_password_file))
        if self.app_password_file is not None:
            object.__setattr__(self, "app_password", _password(self.app_password_file))

    def _complete(self, name: str, password_file: Path | None) -> None:
        password = None if password_file is None else _password(password_file)
        try:
            object.__setattr__(self, name, urls.complete(getattr(self, name), password))
        except ValueError as error:
            example = next(f.metadata["example"] for f in fields(self) if f.name == name)
            raise EcgbatchError(f"{variable(name)} cannot be used: {error}; give {example}") from None


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings; raises EcgbatchError for a value that does not fit or a name that is none."""
    types_by_name = get_type_hints(Settings)
    known = {variable(f.name): f.name for f in fields(Settings)}
    values = {}
    for key, text in environment.items():
        if key.endswith("_URL"):
            text = text.strip()  # it may be from a file, whose last line has an end
        if not key.startswith(PREFIX) or text == "" or _is_of_kubernetes(key, text):
            continue
        if key not in known:
            raise EcgbatchError(f"{key} is no setting of ecgbatch; {_nearest(key, list(known))}")
        values[known[key]] = _parse(key, text, types_by_name[known[key]])
    return Settings(**values)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def _is_of_kubernetes(key: str, text: str) -> bool:
    name = key.removeprefix(PREFIX)
    is_port = name.endswith("PORT") and ADDRESS_OF_KUBERNETES.fullmatch(text)
    return bool(is_port or OF_KUBERNETES.fullmatch(name) or OF_KUBERNETES.fullmatch(f"_{name}"))


def _nearest(key: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"


def _password(path: Path) -> str:
    """What is in the file, without the line's end."""
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read(LONGEST_PASSWORD).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise EcgbatchError(f"cannot read the password in {path}: {reason}") from None
    if not password:
        raise EcgbatchError(f"there is no password in {path}: the file is empty")
    return password


def _parse(key: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    if kind is bool:
        return _parse_bool(key, text)
    if kind is float:
        return _parse_float(key, text)
    if kind is not int:
        return kind(text)
    if not text.isdecimal() or int(text) == 0:
        raise EcgbatchError(f"{key} must be a whole number above zero, not {text!r}")
    return int(text)


def _parse_bool(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise EcgbatchError(f"{key} must be true or false, not {text!r}")
    return text.lower() == "true"


def _parse_float(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise EcgbatchError(f"{key} must be a number above zero, not {text!r}")
    return number
