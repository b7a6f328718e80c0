"""One synthetic ECG in every format, beside its WFDB original."""

from pathlib import Path

import pytest
from ecg_files import ARCHIVE_TOML, WRITERS, wfdb
from ecg_made import Ecg, make


@pytest.fixture(scope="session")
def ecg() -> Ecg:
    return make(500)


@pytest.fixture(scope="session")
def folder(ecg: Ecg, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`original.hea`, a file of each name of WRITERS, and the `archive.toml` that two of them need."""
    root = tmp_path_factory.mktemp("formats")
    wfdb(root, "original", ecg)
    for name, write in WRITERS.items():
        (root / name).write_bytes(write(ecg))
    (root / "archive.toml").write_text(ARCHIVE_TOML.format(rate=ecg.rate))
    return root
