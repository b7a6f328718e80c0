"""`ecgbatch doctor`: looks at everything that scoring needs and says what to do about what is missing."""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ecgbatch import urls
from ecgbatch.settings import EcgbatchError, Settings

PACKAGES = ("celery", "redis", "torch", "numpy", "wfdb", "sqlalchemy", "flower")


class Finding(NamedTuple):
    """What was looked at, whether it is well, and what was found or is to be done."""

    what: str
    well: bool
    finding: str


def findings(settings: Settings) -> list[Finding]:
    """All findings; `run` needs no Redis server, so a missing one is well."""
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("database", _database),
        ("redis", _redis),
        ("model", _model),
        ("kernel", _kernel),
        ("reading", _reading),
        ("device", _device),
        ("versions", _versions),
    ]
    return [_finding(what, check, settings) for what, check in checks]


def _finding(what: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, check(settings))
    except EcgbatchError as error:
        return Finding(what, False, str(error))


def _database(settings: Settings) -> str:
    from ecgbatch.db.migrate import newest_revision, open_database

    return f"{open_database(settings.database_url)}, schema {newest_revision()}"


def _redis(settings: Settings) -> str:
    from ecgbatch.worker.app import make_app, ping

    if settings.redis_url is None:
        return "not set: `run` starts its own; `enqueue`, `worker` and `flower` need ECGBATCH_REDIS_URL"
    ping(make_app(settings, identity=""))
    return f"{urls.without_secrets(settings.redis_url)} answers"


def _model(settings: Settings) -> str:
    from ecgbatch.models.weights.registry import Registry

    model = Registry(settings.model_dir).find(settings.model)
    return f"{model.name} {model.version}, fingerprint {model.fingerprint[:12]}"


def _kernel(settings: Settings) -> str:
    from ecgbatch.models.kernels import compiled
    from ecgbatch.models.torch_extra import require_torch

    if settings.kernel == "torch" or settings.device != "cpu":
        require_torch(f"ECGBATCH_KERNEL={settings.kernel} with ECGBATCH_DEVICE={settings.device}")
        return "plain torch, as set"
    if compiled.available():
        return f"compiled, {compiled.instructions()} instructions"
    if settings.kernel == "compiled":
        raise EcgbatchError("the compiled kernel was not built: install a C++ compiler and then ecgbatch again")
    require_torch("the compiled kernel was not built, and scoring without it")
    return "plain torch: the compiled kernel was not built; with a C++ compiler at install time it would be faster"


def _reading(settings: Settings) -> str:
    from ecgbatch.records import compiled

    if compiled.available():
        return "compiled, for WFDB records of format 16"
    return "plain Python: the compiled reader was not built; with a C++ compiler at install time it would be faster"


def _device(settings: Settings) -> str:
    from ecgbatch.models.suggestion import cores
    from ecgbatch.models.torch_extra import require_torch

    if settings.device == "cpu":
        return f"cpu, {cores()} cores"
    require_torch("ECGBATCH_DEVICE=cuda")
    import torch

    if not torch.cuda.is_available():
        raise EcgbatchError("no CUDA device is to be seen; set ECGBATCH_DEVICE=cpu, or install the driver")
    return str(torch.cuda.get_device_name())


def _version(package: str) -> str:
    """The version of a package; torch is an extra, and the compiled kernel does without."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _versions(settings: Settings) -> str:
    found = [f"{name} {_version(name)}" for name in ("ecgbatch", *PACKAGES)]
    return ", ".join([f"Python {platform.python_version()}", *found])
