"""Unit tests start no server: what needs Redis, PostgreSQL or workers is an integration test."""

from typing import NoReturn

import pytest


@pytest.fixture(scope="session")
def redis_server() -> NoReturn:
    pytest.fail("a unit test starts no Redis server; move the test to tests/integration")


@pytest.fixture(scope="session")
def postgresql_server() -> NoReturn:
    pytest.fail("a unit test starts no PostgreSQL server; move the test to tests/integration")
