"""`ecgbatch run` on the same recordings as WFDB, as CODE-15 has them (one HDF5 file of many), and as GE MUSE XML.

The other formats are made from the archive: CODE-15's at 400 Hz amid zeros, MUSE's at 500 Hz with eight leads. The
rate is that of workers once they are up. Finding the records and starting is not in it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from measure import CORES, archive_or_synthetic, first_records, in_turn, median, show, workplace
from scipy.signal import resample_poly

from ecgbatch.records.reading import read

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))
from ecg_made import Ecg
from ecg_xml import muse

ROWS_TOGETHER = 500


def ecgs(archive: Path, paths: Sequence[str], rate: int) -> Iterator[Ecg]:
    """The records, brought from 100 Hz to a higher rate."""
    for path in paths:
        yield Ecg(resample_poly(read(archive, path).signal, rate // 100, 1, axis=0), rate)


def as_code15(archive: Path, paths: Sequence[str], folder: Path) -> None:
    """`exams_part0.hdf5` and `exams.csv`."""
    folder.mkdir()
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        tracings = file.create_dataset("tracings", (len(paths) + 1, 4096, 12), np.float32)
        file["exam_id"] = [*range(1, len(paths) + 1), 0]
        for start in range(0, len(paths), ROWS_TOGETHER):
            part = paths[start : start + ROWS_TOGETHER]
            rows = np.zeros((len(part), 4096, 12), np.float32)
            for row, ecg in zip(rows, ecgs(archive, part, 400), strict=True):
                row[48 : 48 + len(ecg.millivolts)] = ecg.millivolts
            tracings[start : start + len(part)] = rows
    lines = [f"{number},60,True,exams_part0.hdf5" for number in range(1, len(paths) + 1)]
    (folder / "exams.csv").write_text("\n".join(["exam_id,age,is_male,trace_file", *lines, ""]))


def as_muse(archive: Path, paths: Sequence[str], folder: Path) -> None:
    """A file for each record."""
    folder.mkdir()
    for number, ecg in enumerate(ecgs(archive, paths, 500)):
        (folder / f"{number:06d}.xml").write_bytes(muse(ecg))


def rate(processes: int, records: int, *arguments: str | Path, listed: Sequence[str] = ()) -> float:
    """Records a second of `ecgbatch run`, which must score them all."""
    with workplace(processes=processes) as place:
        place.run("run", *arguments, *(("--manifest", place.manifest(listed)) if listed else ()))
        job = place.job()
    if job.scored != records or job.records_per_second is None:
        raise SystemExit(f"`ecgbatch run` did not score every record: {job}")
    return job.records_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--muse", type=int, default=2_000, help="how many as MUSE XML; default: %(default)s")
    parser.add_argument("--processes", type=int, default=CORES)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with archive_or_synthetic(args.archive) as archive, TemporaryDirectory(prefix="ecgbatch-formats-") as place:
        paths = first_records(archive, args.records)
        few = paths[: args.muse]
        as_code15(archive, paths, Path(place) / "code15")
        as_muse(archive, few, Path(place) / "muse")
        of = partial(rate, args.processes)
        sides: dict[str, Callable[[], float]] = {
            "WFDB": lambda: of(len(paths), archive, listed=paths),
            "CODE-15's HDF5": lambda: of(len(paths), Path(place) / "code15"),
            "MUSE XML": lambda: of(len(few), Path(place) / "muse"),
        }
        rates = {name: median(found) for name, found in in_turn(sides, args.repeats).items()}
    counts = {"MUSE XML": len(few)}
    rows = [
        {
            "format": name,
            "records": counts.get(name, len(paths)),
            "records per second": found,
            "of WFDB": found / rates["WFDB"],
        }
        for name, found in rates.items()
    ]
    show("formats", rows, processes=args.processes, repeats=args.repeats)


if __name__ == "__main__":
    main()
