"""The app's pages of a large job's records: each until it has its fifty rows, wherever it is in the job."""

import argparse
import time

from measure import database, median, show
from queries import fill

from ecgbatch.db import jobs
from ecgbatch.db.browse import Place, Wanted, job_of, page
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade

ON_A_PAGE = 50


def pages(records: int) -> dict[str, tuple[Wanted, Place]]:
    """Pages that an index leads to, then those for which all of the job's rows are looked through."""
    middle = Place(after=records // 2 + 1)
    return {
        "the first": (Wanted(), Place()),
        "in the middle": (Wanted(), middle),
        "before the last": (Wanted(), Place(before=records - 1)),
        "by path, in the middle": (Wanted(sort="path"), middle),
        "found MI, in the middle": (Wanted("mi", least=0.35), middle),
        "a rare path": (Wanted(text=f"/{records - 2}"), Place()),
        "highest MI": (Wanted(sort="mi", descending=True), Place()),
        "highest MI, further on": (Wanted(sort="mi", descending=True), middle),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for kind in args.databases:
        with database(kind) as url:
            filled = Database(url)
            upgrade(filled)
            number = filled.write(fill, args.records, 1)
            filled.write(jobs.refresh_statistics)
            for name, asked in pages(args.records).items():
                seconds = median([seconds_of(filled, number, *asked) for _ in range(args.repeats)])
                rows.append({"database": kind, "page": name, "seconds": seconds})
            filled.engine.dispose()
    show("browse", rows, records=args.records, repeats=args.repeats)


def seconds_of(filled: Database, number: int, wanted: Wanted, place: Place) -> float:
    began = time.perf_counter()
    with filled.read() as connection:
        page(connection, job_of(connection, number), wanted, place, ON_A_PAGE)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
