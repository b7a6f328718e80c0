"""Growth: `ecgbatch enqueue` of more and more records (paths only): time, rate and peak memory."""

import argparse
from functools import partial
from typing import NamedTuple

from measure import database, in_turn, median, redis_server, show, workplace


class Enqueued(NamedTuple):
    """Seconds from the command to its end, and the most memory that it had, in MB."""

    seconds: float
    memory: float


def enqueue(kind: str, records: int) -> Enqueued:
    """Enqueues a table of that many records, which need not be there."""
    with database(kind) as url, redis_server() as redis_url, workplace(database_url=url, redis_url=redis_url) as place:
        (place.folder / "records").mkdir()
        (place.folder / "records/00000000.hea").touch()  # an archive of which nothing is there is refused
        manifest = place.manifest(f"records/{number:08d}" for number in range(records))
        place.run("db", "upgrade")
        seconds, memory = place.run_measured("enqueue", place.folder, "--manifest", manifest)
        if place.job().total != records:
            raise SystemExit(f"not every record was enqueued: {place.job()}")
    return Enqueued(seconds, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    results = in_turn({str(size): partial(enqueue, args.database, size) for size in args.sizes}, args.repeats)
    rows = []
    for size, enqueued in zip(args.sizes, results.values(), strict=True):
        seconds, memory = (median(values) for values in zip(*enqueued, strict=True))
        rate = size / seconds
        rows.append({"records": size, "seconds": seconds, "records per second": rate, "peak memory, MB": memory})
    show("growth", rows, database=args.database, repeats=args.repeats)


if __name__ == "__main__":
    main()
