"""The commands of the database: query, db upgrade, db current."""

from functools import partial
from pathlib import Path

import click

from ecgbatch.commands import PATH, as_json, command
from ecgbatch.printing import print_csv, print_note, print_rows, say
from ecgbatch.settings import EcgbatchError, load

QUERIES = Path(__file__).parent / "queries"


def stored_queries() -> dict[str, str]:
    """The stored queries by name; a query's first line is a comment that says what it gives."""
    return {path.stem: path.read_text() for path in sorted(QUERIES.glob("*.sql"))}


@command(example='ecgbatch query --sql "SELECT path, mi FROM results WHERE mi > :least" --param least=0.9 --csv')
@click.argument("name", required=False, metavar="[NAME]", help="A stored query.")
@click.option("--sql", metavar="SELECT", help="A statement of your own; it cannot write.")
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", help="What the statement calls :NAME.")
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(name: str | None, sql: str | None, given: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    """Run a stored query, or any SELECT.

    Without either it lists the stored queries. All of them take --param job=N; without it they are of all jobs.
    """
    from ecgbatch.db.migrate import open_database
    from ecgbatch.db.select import parameters_of, select

    stored = stored_queries()
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    if sql is not None and name is not None:
        raise click.UsageError("give the name of a stored query or --sql, not both")
    print_found = print_csv if as_csv else partial(print_rows, as_json=as_json)
    if sql is None and name is None:
        if given:
            raise click.UsageError("--param needs a statement")
        print_found(["query", "what it gives"], [(each, meaning_of(text)) for each, text in stored.items()])
        return
    statement = sql if name is None else stored.get(name)
    if statement is None:
        raise EcgbatchError(f"there is no stored query {name!r}; there are {', '.join(stored)}")
    parameters: dict[str, str | None] | None = dict(_parameter(text) for text in given) if given else None
    if name is not None:
        parameters = dict.fromkeys(parameters_of(statement), None) | (parameters or {})
    with select(open_database(load().database_url), statement, parameters) as (columns, rows):
        print_found(columns, rows)
    print_note("research use only, never for diagnosis")


def meaning_of(sql: str) -> str:
    """What a stored query gives."""
    return sql.splitlines()[0].removeprefix("-- ")


def _parameter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
    return name, value


@command(example="ecgbatch metrics --port 9108")
@click.option("--port", type=click.IntRange(1, 65535), help="Answer Prometheus there; without it they are printed.")
@click.option("--address", default="127.0.0.1", help="The address to listen on; default: 127.0.0.1.")
def metrics(port: int | None, address: str) -> None:
    """Show jobs, chunks, failures, flags and workers to Prometheus."""
    try:
        from ecgbatch.db.metrics import as_text, serve
    except ModuleNotFoundError:
        raise EcgbatchError("metrics need prometheus_client: pip install 'ecgbatch[metrics]'") from None
    from ecgbatch.db.migrate import open_database

    database = open_database(load().database_url)
    if port is None:
        print(as_text(database), end="")
    else:
        serve(database, address, port)


@command(example="ecgbatch export 1 results.csv")
@click.argument("job", type=int, help="The job's id.")
@click.argument("file", type=PATH, help="Where to write: .csv, .jsonl or .parquet (needs the extra `parquet`).")
@click.option(
    "--what",
    type=click.Choice(["all", "results", "failures"]),
    default="all",
    show_default=True,
    help="Each record of the job, what was scored, or what failed.",
)
@click.option("--embeddings", is_flag=True, help="Also the embeddings that the job kept; .parquet alone has them.")
def export(job: int, file: Path, what: str, embeddings: bool) -> None:
    """Write what came of a job into a file.

    A row for each record: probabilities, flags, the digests and names that they can be traced by, or why it failed.
    A file that is there is replaced, once the new one is complete.
    """
    from ecgbatch.db import reports
    from ecgbatch.db.export import Which
    from ecgbatch.db.export import export as write
    from ecgbatch.db.migrate import open_database

    with open_database(load().database_url).read() as connection:
        reports.progress(connection, job)
        say(f"{file}: {write(connection, job, file, Which(what), embeddings):,} records")
    print_note("research use only, never for diagnosis")


@click.group()
def db() -> None:
    """Look after the database's schema."""


@command("upgrade", group=db, example="ecgbatch db upgrade")
def upgrade() -> None:
    """Create the schema, or migrate it to this version's.

    SQLite needs no call: it is done unasked.
    """
    from ecgbatch.db import migrate
    from ecgbatch.db.engine import Database

    database = Database(load().database_url)
    print(f"{database}: schema {migrate.upgrade(database)}")


@command("current", group=db, example="ecgbatch db current")
def current() -> int:
    """Print the schema's revision and the one that is needed."""
    from ecgbatch.db.engine import Database
    from ecgbatch.db.migrate import current_revision, newest_revision

    database = Database(load().database_url)
    revision = current_revision(database)
    print(f"{database}: schema {revision or 'none'}, this ecgbatch works with {newest_revision()}")
    return 0 if revision == newest_revision() else 1
