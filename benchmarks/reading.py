"""How long it takes to read a record: 100 Hz beside 500 Hz, `.dat` beside the `.mat` of the CinC challenges.

The archives are read in turn, several times, in one process; the best turn of each counts, in processor time, which
other load disturbs less. With `--run` each archive is also scored by `ecgbatch run`, in turn.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measure import in_turn, show

from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read

KINDS = ((100, ".dat"), (500, ".dat"), (500, ".mat"))


def write_archive(folder: Path, rate: int, suffix: str, records: int) -> None:
    """Records of ten seconds of wandering signals, in format 16."""
    folder.mkdir()
    for number in range(records):
        rng = np.random.default_rng(number)
        digital = np.clip(rng.standard_normal((10 * rate, 12)).cumsum(axis=0) * 20, -2000, 2000).astype("<i2")
        matlab = np.array([30, 12, 10 * rate, 0, 4], "<i4").tobytes() + b"val\0" if suffix == ".mat" else b""
        (folder / f"r{number}{suffix}").write_bytes(matlab + digital.tobytes())
        form = "16+24" if matlab else "16"
        lines = [f"r{number} 12 {rate} {len(digital)}"]
        for lead, first, total in zip(LEADS, digital[0], digital.sum(axis=0, dtype=np.int64) % 65536, strict=True):
            lines.append(f"r{number}{suffix} {form} 1000(0)/mV 16 0 {first} {total} 0 {lead}")
        (folder / f"r{number}.hea").write_text("\n".join([*lines, "#Age: 60", "#Sex: Male"]) + "\n")


def microseconds(folder: Path, records: int) -> float:
    """Of processor time for one record, on average."""
    began = time.process_time()
    for number in range(records):
        read(folder, f"r{number}")
    return (time.process_time() - began) / records * 1e6


def run_milliseconds(folder: Path, records: int) -> float:
    """Of processor time of `ecgbatch run` for one record, its start and stop included."""
    with TemporaryDirectory() as place:
        began = children_seconds()
        line = [sys.executable, "-m", "ecgbatch", "run", str(folder)]
        subprocess.run(line, cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (children_seconds() - began) / records * 1e3


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--run", action="store_true", help="score each archive by `ecgbatch run` too")
    args = parser.parse_args()
    with TemporaryDirectory() as place:
        folders = {f"{rate} Hz {suffix}": Path(place) / f"{rate}{suffix[1:]}" for rate, suffix in KINDS}
        for (rate, suffix), folder in zip(KINDS, folders.values(), strict=True):
            write_archive(folder, rate, suffix, args.records)

        def sides(measure: Callable[[Path, int], float]) -> dict[str, Callable[[], float]]:
            return {name: partial(measure, folder, args.records) for name, folder in folders.items()}

        reading = in_turn(sides(microseconds), args.repeats)
        running = in_turn(sides(run_milliseconds), args.repeats) if args.run else {}
    rows = []
    for name in folders:
        row: dict[str, str | float] = {"archive": name, "reading, us per record": min(reading[name])}
        if args.run:
            row["run, ms per record"] = min(running[name])
        rows.append(row)
    show("reading", rows, records=args.records, repeats=args.repeats)


if __name__ == "__main__":
    main()
