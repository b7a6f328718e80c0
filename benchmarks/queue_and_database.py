"""Queue and database alone, with a model that takes no time: records per second through real workers, Redis and SQL,
and the bytes that a record takes in each table, its indexes included, and all messages in Redis.

What stands for the model and for reading is in no_model.py; all else is what a user runs, with its defaults.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import redis
from measure import database, in_turn, median, redis_server, show, workplace

from ecgbatch.db.engine import Database

NO_MODEL = Path(__file__).parent / "no_model.py"
TABLES = ("recordings", "job_items", "predictions")
"""Those that have a row for each record."""


class Passage(NamedTuple):
    """Records per second on their way in, and on their way from the first claim to the end of the job; bytes."""

    enqueued: float
    scored: float
    redis_bytes: int
    table_bytes: dict[str, int]


def passage(kind: str, records: int, processes: int) -> Passage:
    """Enqueues a job of records that are not there, then lets workers take them."""
    with database(kind) as url, redis_server() as redis_url, workplace(database_url=url, redis_url=redis_url) as place:
        manifest = place.manifest([f"records/{number:08d}" for number in range(records)])
        (place.folder / "records").mkdir()
        (place.folder / "records/00000000.hea").touch()  # an archive of which nothing is there is refused
        place.run("db", "upgrade")
        before = memory_of(redis_url)
        seconds = place.run("enqueue", place.folder, "--manifest", manifest)
        messages = memory_of(redis_url) - before
        with place.worker(NO_MODEL, ECGBATCH_PROCESSES=str(processes)) as worker:
            job = place.wait_for_job(worker)
        sizes = sizes_of_tables(url)
    if job.scored != records or job.records_per_second is None:
        raise SystemExit(f"not every record was scored: {job}")
    return Passage(records / seconds, job.records_per_second, messages, sizes)


def memory_of(redis_url: str) -> int:
    """The bytes that a Redis server has taken."""
    with redis.Redis.from_url(redis_url) as client:
        return int(client.info("memory")["used_memory"])


def sizes_of_tables(url: str) -> dict[str, int]:
    """The bytes of each table with a row for each record, and of its indexes."""
    database = Database(url)
    sql = "SELECT SUM(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = '{}')"
    if not database.is_sqlite:
        sql = "SELECT pg_total_relation_size('{}')"
    with database.read() as connection:
        sizes = {table: int(connection.exec_driver_sql(sql.format(table)).scalar_one()) for table in TABLES}
    database.engine.dispose()
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sides = {
        "SQLite": lambda: passage("sqlite", args.records, args.processes),
        "PostgreSQL": lambda: passage("postgresql", args.records, args.processes),
    }
    results = in_turn(sides, args.repeats)
    rows = [
        {
            "database": name,
            "enqueued per second": median([passage.enqueued for passage in passages]),
            "scored per second": median([passage.scored for passage in passages]),
            **{f"{table}, bytes a record": passages[0].table_bytes[table] / args.records for table in TABLES},
            "Redis, bytes": passages[0].redis_bytes,
        }
        for name, passages in results.items()
    ]
    each = {name: [passage.scored for passage in passages] for name, passages in results.items()}
    show("queue_and_database", rows, records=args.records, processes=args.processes, repeats=args.repeats, each=each)


if __name__ == "__main__":
    main()
