"""Integration tests: a few real parts together, mostly a database or a queue without workers."""

from pathlib import Path

import pytest

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    """An empty SQLite database with the schema, for tests to which the kind of database does not matter."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    upgrade(database)
    return database
