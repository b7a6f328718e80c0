"""The commands of the database: query, db upgrade, db current."""

import argparse
from pathlib import Path

from ecgbatch.printing import print_rows, remark
from ecgbatch.settings import load

QUERIES = Path(__file__).parent / "queries"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs of this room."""
    query = commands.add_parser(
        "query",
        help="run a stored query, or any SELECT",
        description="Runs a stored query, or any SELECT; without either it lists the stored queries.",
    )
    query.add_argument("name", nargs="?", metavar="NAME", help="a stored query")
    query.add_argument("--sql", metavar="SELECT", help="a statement of your own; it cannot write")
    query.add_argument("--json", action="store_true", help="print JSON")
    query.set_defaults(run=run_query)

    database = commands.add_parser(
        "db", help="look after the database's schema", description="Looks after the database's schema."
    ).add_subparsers(metavar="COMMAND", required=True)
    upgrade = database.add_parser(
        "upgrade",
        help="create or migrate the schema",
        description="Creates the schema, or migrates it to this version's. SQLite needs no call: it is done unasked.",
    )
    upgrade.set_defaults(run=run_upgrade)
    current = database.add_parser(
        "current",
        help="print the database's schema revision",
        description="Prints the database's schema revision and the one that this ecgbatch works with.",
    )
    current.set_defaults(run=run_current)


def stored_queries() -> dict[str, str]:
    """The stored queries by name; a query's first line is a comment that says what it gives."""
    return {path.stem: path.read_text() for path in sorted(QUERIES.glob("*.sql"))}


def run_query(args: argparse.Namespace) -> int:
    from ecgbatch.db.migrate import open_database
    from ecgbatch.db.select import select
    from ecgbatch.settings import EcgbatchError

    stored = stored_queries()
    if args.sql is None and args.name is None:
        meanings = [(name, sql.splitlines()[0].removeprefix("-- ")) for name, sql in stored.items()]
        print_rows(["query", "what it gives"], meanings, args.json)
        return 0
    if args.sql is not None and args.name is not None:
        raise EcgbatchError("give the name of a stored query or --sql, not both")
    if args.sql is None and args.name not in stored:
        raise EcgbatchError(f"there is no stored query {args.name!r}; there are {', '.join(stored)}")
    database = open_database(load().database_url)
    with select(database, args.sql or stored[args.name]) as (columns, rows):
        print_rows(columns, rows, args.json)
    remark("research use only, never for diagnosis")
    return 0


def run_upgrade(args: argparse.Namespace) -> int:
    from ecgbatch.db.engine import Database
    from ecgbatch.db.migrate import upgrade

    database = Database(load().database_url)
    print(f"{database}: schema {upgrade(database)}")
    return 0


def run_current(args: argparse.Namespace) -> int:
    from ecgbatch.db.engine import Database
    from ecgbatch.db.migrate import current_revision, newest_revision

    database = Database(load().database_url)
    current = current_revision(database)
    print(f"{database}: schema {current or 'none'}, this ecgbatch works with {newest_revision()}")
    return 0 if current == newest_revision() else 1
