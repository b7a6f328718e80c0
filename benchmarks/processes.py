"""One and two worker processes: how `ecgbatch run` and the bare model scale, in turn."""

import argparse
from functools import partial
from pathlib import Path

import bare
from end_to_end import run
from measure import BEST, archive_or_synthetic, first_records, in_turn, median, show


def run_rate(archive: Path, paths: list[str], processes: int) -> float:
    """Records per second of `ecgbatch run`, workers up."""
    return run(archive, paths, processes, "auto", BEST).rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, help="the first N; default: all")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with archive_or_synthetic(args.archive) as archive:
        paths = first_records(archive, args.records)
        sides = {}
        for n in args.processes:
            sides[f"bare {n}"] = partial(bare.rate, archive, paths, n, "auto", BEST)
            sides[f"run {n}"] = partial(run_rate, archive, paths, n)
        results = in_turn(sides, args.repeats)
    rates = {name: median(values) for name, values in results.items()}
    first = args.processes[0]
    rows = [
        {
            "processes": n,
            "bare model, records per second": rates[f"bare {n}"],
            "run, records per second": rates[f"run {n}"],
            "bare model, times as fast": rates[f"bare {n}"] / rates[f"bare {first}"],
            "run, times as fast": rates[f"run {n}"] / rates[f"run {first}"],
        }
        for n in args.processes
    ]
    show("processes", rows, records=len(paths), repeats=args.repeats, each=results)


if __name__ == "__main__":
    main()
