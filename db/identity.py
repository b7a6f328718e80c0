"""Which database this is: queues and messages carry its identity, so that no worker takes another's work."""

import hashlib
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.engine import Database
from ecgbatch.db.schema import database_identity


def identity_of(database: Database) -> str:
    """Sixteen hexadecimal digits: the same for all who use a database, others for each other database and each copy."""
    with database.read() as connection:
        made_with_the_schema = connection.execute(sa.select(database_identity.c.id)).scalar_one()
        place = _sqlite_file(connection) if database.is_sqlite else _postgresql_database(connection)
    return hashlib.sha256(f"{made_with_the_schema} {place}".encode()).hexdigest()[:16]


def _sqlite_file(connection: Connection) -> str:
    """What tells a file from its copy, by whatever path it is reached."""
    path = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]
    return str(Path(path).stat().st_ino) if path else "in memory"


def _postgresql_database(connection: Connection) -> str:
    """What tells a database from one that was restored from its dump, there or on another server."""
    oid = connection.exec_driver_sql("SELECT oid FROM pg_database WHERE datname = current_database()").scalar_one()
    allowed = "SELECT has_function_privilege('pg_control_system()', 'execute')"
    if not connection.exec_driver_sql(allowed).scalar_one():
        return str(oid)
    return f"{oid} {connection.exec_driver_sql('SELECT system_identifier FROM pg_control_system()').scalar_one()}"
