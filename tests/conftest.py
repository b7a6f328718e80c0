"""What all tests may ask for. Servers are in support/servers.py; each kind of test has its own conftest beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command
from once import once
from places import SHARED

from ecgbatch.records.synthetic import write_archive

pytest_plugins = ["servers", "https_site"]

os.environ["OMP_NUM_THREADS"] = "1"  # a test process per core: more threads only wait for each other


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with PTB-XL and the golden numbers; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs PTB-XL and the golden numbers; set TEST_DATA to their folder")
    return SHARED


@pytest.fixture(scope="session")
def ptbxl_fold9(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fold 9 of PTB-XL (2,193 records at 100 Hz, some at 500 Hz too), unpacked."""

    def unpack(folder: Path) -> None:
        command = [sys.executable, str(shared / "ptbxl/ptbxl_archive.py"), "unpack", str(folder / "fold9")]
        subprocess.run([*command, "--folds", "9", "--hr"], check=True, stdout=subprocess.DEVNULL)

    return once(tmp_path_factory, "ptbxl", unpack) / "fold9"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command with its embedded defaults."""
    return Command(tmp_path)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic archive of 64 records, which no test changes."""
    return once(tmp_path_factory, "synthetic", lambda folder: write_archive(folder / "archive")) / "archive"


@pytest.fixture(scope="session")
def finished(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command where an undisturbed run has scored the synthetic archive, for tests that only look on."""
    return Command(once(tmp_path_factory, "finished", lambda folder: Command(folder)("run", synthetic)))


@pytest.fixture
def archive(synthetic: Path, tmp_path: Path) -> Path:
    """A synthetic archive of 64 records."""
    return shutil.copytree(synthetic, tmp_path / "archive")
