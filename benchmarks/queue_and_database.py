"""Queue and database alone: records per second through real workers, Redis and SQL, with a model that takes no time.

What stands for the model and for reading is in no_model.py; all else is what a user runs, with its defaults.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from measure import database, in_turn, median, redis_server, show, workplace

NO_MODEL = Path(__file__).parent / "no_model.py"


class Passage(NamedTuple):
    """Records per second on their way in, and on their way from the first claim to the end of the job."""

    enqueued: float
    scored: float


def passage(kind: str, records: int, processes: int) -> Passage:
    """Enqueues a job of records that are not there, then lets workers take them."""
    with database(kind) as url, redis_server() as redis_url, workplace(database_url=url, redis_url=redis_url) as place:
        manifest = place.manifest([f"records/{number:08d}" for number in range(records)])
        (place.folder / "records").mkdir()
        (place.folder / "records/00000000.hea").touch()  # an archive of which nothing is there is refused
        place.run("db", "upgrade")
        seconds = place.run("enqueue", place.folder, "--manifest", manifest)
        with place.worker(NO_MODEL, ECGBATCH_PROCESSES=str(processes)) as worker:
            job = place.wait_for_job(worker)
    if job.scored != records or job.records_per_second is None:
        raise SystemExit(f"not every record was scored: {job}")
    return Passage(records / seconds, job.records_per_second)


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
        }
        for name, passages in results.items()
    ]
    each = {name: [passage.scored for passage in passages] for name, passages in results.items()}
    show("queue_and_database", rows, records=args.records, processes=args.processes, repeats=args.repeats, each=each)


if __name__ == "__main__":
    main()
