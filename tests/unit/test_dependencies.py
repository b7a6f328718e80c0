"""What is declared, what is locked, and that both say the same."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (REPOSITORY / "requirements.lock").read_text()
DECLARED = [*PROJECT["dependencies"], *(line for name in EXTRAS if name != "torch" for line in EXTRAS[name])]


@pytest.mark.parametrize("declared", [line for line in DECLARED if not line.startswith("ecgbatch[")])
def test_what_is_declared_is_locked(declared: str) -> None:
    requirement = Requirement(declared)
    name = re.escape(requirement.name).replace("_", "[-_]")
    locked = re.findall(rf"^{name}==(\S+)", LOCK, re.IGNORECASE | re.MULTILINE)
    assert locked, "run `make lock`"
    assert all(requirement.specifier.contains(version) for version in locked), "run `make lock`"


def test_developers_have_every_extra_but_torch() -> None:
    [everything] = [Requirement(line) for line in EXTRAS["dev"] if line.startswith("ecgbatch[")]
    assert everything.extras == set(EXTRAS) - {"dev", "torch"}


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/requirements.lock", "deploy/requirements-cuda.lock"])
def test_every_locked_version_has_hashes_and_none_an_address(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    pinned = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, re.IGNORECASE | re.MULTILINE | re.DOTALL)
    assert len(pinned) > 20
    assert [entry.split("==")[0] for entry in pinned if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|@ |file:", text)
    assert ("torch==" in text) == lock.endswith("cuda.lock")


def test_torch_is_the_same_everywhere() -> None:
    [made] = re.findall(r"^TORCH +:= (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert f"\n{made} " in (REPOSITORY / "deploy/requirements-cuda.lock").read_text(), "run `make lock`"
