"""Brings the database to the schema of this version; says when it is older or newer."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db.engine import Database, NotAllowed
from ecgbatch.settings import EcgbatchError

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST_ON_SQLITE = MIGRATIONS / "newest_on_sqlite.sql"
"""What the migrations make of an empty SQLite file, which need not go through all of them."""
ADVISORY_LOCK = 0x0ECB
"""The PostgreSQL lock under which only one process migrates."""


class NewerSchema(EcgbatchError):
    """The database's schema is one of a later version of ecgbatch."""


def newest_revision() -> str:
    """The revision of this version of ecgbatch, from the files' names, which Alembic's chain follows."""
    return sorted(path.name[:4] for path in MIGRATIONS.glob("versions/[0-9]*.py"))[-1]


def current_revision(database: Database) -> str | None:
    """The database's revision, None if it has no schema yet."""
    with database.read() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database) -> str:
    """Migrates the database to this version's schema and returns the revision.

    Raises NewerSchema, and EcgbatchError when the role may not change the schema.
    """
    refuse_newer_schema(database)
    try:
        database.write(_migrate)
    except NotAllowed:
        raise EcgbatchError(_missing_right(database)) from None
    return newest_revision()


def _missing_right(database: Database) -> str:
    """Which right a role of PostgreSQL lacks to make or change the tables, and how it is given."""
    with database.read() as connection:
        role, name, schema, may_create = connection.exec_driver_sql(
            "SELECT quote_ident(current_user), quote_ident(current_database()), quote_ident(current_schema()), "
            "has_schema_privilege(current_schema(), 'CREATE')"
        ).one()
    if may_create:
        return f"the role {role} does not own the tables of {database}: run `ecgbatch db upgrade` as the one that does"
    return (
        f"the role {role} may not make tables in {database}; as the owner of the database run, in {name}: "
        f"GRANT CREATE ON SCHEMA {schema} TO {role};"
    )


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        _check_encoding(connection)
    elif connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0:
        for statement in NEWEST_ON_SQLITE.read_text().removesuffix(";\n\n").split(";\n\n"):
            connection.exec_driver_sql(statement)
    if _revision(connection) != newest_revision():
        _go_through_migrations(connection)


def _check_encoding(connection: Connection) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise EcgbatchError(
            f"the database's encoding is {encoding}, which cannot hold every name of a file; make it anew: "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _go_through_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def open_database(url: str, patience: float = 0) -> Database:
    """The database of a URL at this version's schema: SQLite is migrated unasked, PostgreSQL never.

    Whether the schema is this version's is not asked of a PostgreSQL role that may not read its revision.
    """
    database = Database(url, patience)
    try:
        revision = refuse_newer_schema(database)
    except NotAllowed:  # a role that may read the results alone
        return database
    if revision != newest_revision():
        if not database.is_sqlite:
            raise _needs_upgrade(database, revision)
        upgrade(database)
    return database


def open_read_only(url: str) -> Database:
    """The database of a URL at this version's schema, which nothing that is done with it changes.

    Raises EcgbatchError when it is not there, or has another schema.
    """
    database = Database(url, read_only=True)
    if database.is_sqlite and not Path(database.where).is_file():
        raise EcgbatchError(f"there is no database {database.where} yet; `ecgbatch run` makes it")
    try:
        revision = refuse_newer_schema(database)
    except NotAllowed:
        return database
    if revision != newest_revision():
        raise _needs_upgrade(database, revision)
    return database


def _needs_upgrade(database: Database, revision: str | None) -> EcgbatchError:
    lacks = "no tables yet" if revision is None else "an old schema"
    return EcgbatchError(f"the database {database} has {lacks}; run: ecgbatch db upgrade")


def refuse_newer_schema(database: Database) -> str | None:
    """The database's revision, None if it has no schema yet; raises NewerSchema."""
    revision = current_revision(database)
    if revision is not None and revision > newest_revision():
        raise NewerSchema(
            f"the database {database} has schema {revision}, newer than this ecgbatch knows "
            f"({newest_revision()}); install the newer ecgbatch"
        )
    return revision
