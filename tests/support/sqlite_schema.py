"""Writes down what the migrations make of an empty SQLite file: `python tests/support/sqlite_schema.py`."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from ecgbatch.db.migrate import MIGRATIONS, NEWEST_ON_SQLITE, newest_revision


def script() -> str:
    """Statements that make the newest schema at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with sa.create_engine("sqlite://").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        statements = made(connection)
    statements += [
        f"INSERT INTO alembic_version VALUES ('{newest_revision()}')",
        "INSERT INTO database_identity VALUES (lower(hex(randomblob(16))))",
    ]
    return "".join(f"{statement};\n\n" for statement in statements)


def made(connection: Connection) -> list[str]:
    """The statements that made what is there, in their order."""
    return list(connection.scalars(sa.text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")))


if __name__ == "__main__":
    NEWEST_ON_SQLITE.write_text(script())
