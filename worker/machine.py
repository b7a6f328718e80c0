"""What this machine has for a worker: cores, GPUs, a name that stays the same."""

import fcntl
import os
import re
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from ecgbatch.models import suggestion

CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores that this process may use, by its affinity and by its control group's share of time; at least one."""
    quota = cpu_quota(CGROUPS, Path("/proc/self/cgroup"))
    return suggestion.cores() if quota is None else max(1, min(suggestion.cores(), int(quota)))


def cpu_quota(cgroups: Path, mine: Path) -> float | None:
    """Cores that the control groups of a process let it use, of version 2 or 1; None where there is no limit."""
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _quotas(cgroups, path, _quota_2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(cgroups / "cpu", path, _quota_1)
    return min(quotas, default=None)


def _quotas(top: Path, path: str, quota_of: Callable[[Path], float | None]) -> list[float]:
    """Those of a group and all above it; in a container its own may be seen as the top."""
    group = top / path.lstrip("/")
    groups = [group, *(above for above in group.parents if above.is_relative_to(top))]
    return [quota for folder in groups if (quota := quota_of(folder)) is not None]


def _quota_2(group: Path) -> float | None:
    try:
        most, period = (group / "cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(group: Path) -> float | None:
    try:
        most, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return most / period if most > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; torch must not be asked before a fork."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        return names[: names.index("-1")] if "-1" in names else [name for name in names if name]
    found = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(found))]


class Name:
    """A worker's name on this host, the first that no other has: it is the same after a restart.

    It is held, by a lock on a file, until the process ends.
    """

    def __init__(self, identity: str) -> None:
        host, number = socket.gethostname(), 1
        while not self._lock(Path(tempfile.gettempdir()) / f"ecgbatch-{identity}-{number}.lock"):
            number += 1
        self.text = f"ecgbatch-{number}@{host}"

    def _lock(self, path: Path) -> bool:
        try:
            self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:  # another user's
            return False
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.file)
            return False
        return True
