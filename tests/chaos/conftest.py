"""Tests of faults: real workers that are killed, starved and fed bad records."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from places import FAULTY_WORKER
from servers import start_postgresql


@pytest.fixture
def faulty(services: Command) -> Command:
    """Commands whose worker processes meet faults in records named after them, and whose leases are short."""
    services.worker_script = FAULTY_WORKER
    services.environment |= {
        "ECGBATCH_CHUNK_SIZE": "16",
        "ECGBATCH_LEASE_SECONDS": "3",
        "ECGBATCH_RECONCILE_SECONDS": "1",
        "ECGBATCH_MEMORY_MB": "512",
    }
    return services


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def ptbxl(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 21,837 records of PTB-XL at 100 Hz."""
    archive = tmp_path_factory.mktemp("ptbxl") / "all"
    unpack = [sys.executable, str(shared / "ptbxl/ptbxl_archive.py"), "unpack", str(archive)]
    subprocess.run(unpack, check=True, stdout=subprocess.DEVNULL)
    return archive


@pytest.fixture
def five_thousand(ptbxl: Path) -> Path:
    """An archive of the first 5,000 records."""
    archive = ptbxl.parent / "five_thousand"
    if not archive.exists():
        paths = (ptbxl / "RECORDS").read_text().split()[:5000]
        for file in (f"{path}{suffix}" for path in paths for suffix in (".hea", ".dat")):
            (archive / file).parent.mkdir(parents=True, exist_ok=True)
            (archive / file).hardlink_to(ptbxl / file)
        (archive / "RECORDS").write_text("\n".join([*paths, ""]))
    return archive


@pytest.fixture
def chaotic(services: Command, tmp_path: Path) -> Command:
    """Default settings, but records that take 10 ms longer and are counted when they are scored."""
    count = tmp_path / "scored"
    count.touch()
    services.worker_script = FAULTY_WORKER
    services.environment |= {"FAULTS_SLOW": "0.01", "FAULTS_COUNT": str(count)}
    return services


@pytest.fixture
def own_postgresql() -> Iterator[Any]:
    """A server that can be stopped: where tests run as root it runs as another user, who must get at its folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = start_postgresql(Path(folder) / "postgresql")
        yield server
        server.cleanup()
