"""`ecgbatch run` on an archive against the bare model on the same records, in turn.

The rate of `run` is given twice: once workers are up (from the job's first claim to its end, from SQL) and over the
whole wall clock, from the command to its end. Memory is that of its largest worker process.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import bare
import numpy as np
from measure import BEST, CORES, WorkerMemory, archive_or_synthetic, first_records, in_turn, median, show, workplace


class Side(NamedTuple):
    """Records per second and, for `run`, those over the whole wall clock and the memory of a worker process, in MB."""

    rate: float
    wall_clock: float | None = None
    memory: float | None = None
    growth: float | None = None


def run(archive: Path, paths: list[str], processes: int, kernel: str, model: str) -> Side:
    """`ecgbatch run` in a folder of its own, with its defaults but for the processes, the kernel and the model."""
    with workplace(processes=processes, kernel=kernel, model=model) as place:
        manifest = place.manifest(paths)
        began = time.perf_counter()
        process = place.start("run", archive, "--manifest", manifest)
        with WorkerMemory(process.pid) as memory:
            place.finish(process)
        wall_clock = time.perf_counter() - began
        job = place.job()
    if job.scored != len(paths) or job.records_per_second is None:
        raise SystemExit(f"`ecgbatch run` did not score every record: {job}")
    return Side(job.records_per_second, len(paths) / wall_clock, memory.peak, memory.growth)


def one_record(kernel: str, model: str) -> float:
    """Milliseconds for one record alone, cleaned and scored by a resident model: the median of 50."""
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import Registry
    from ecgbatch.settings import load

    scorer = Scorer(Registry(load().model_dir).find(model), "cpu", kernel)
    signal = np.random.default_rng(0).standard_normal((1, 1000, 12))
    times = []
    for _ in range(50):
        began = time.perf_counter()
        scorer.score(scorer.clean(signal)[0], np.array([[60.0, 0.0]], np.float32))
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, help="the first N; default: all")
    parser.add_argument("--processes", type=int, default=CORES)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--model", default=BEST, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with archive_or_synthetic(args.archive) as archive:
        paths = first_records(archive, args.records)
        sides = in_turn(
            {
                "bare model": lambda: Side(bare.rate(archive, paths, args.processes, args.kernel, args.model)),
                "ecgbatch run": lambda: run(archive, paths, args.processes, args.kernel, args.model),
            },
            args.repeats,
        )
    bare_rate = median([side.rate for side in sides["bare model"]])
    runs = sides["ecgbatch run"]
    up, whole = (median([value for value in values if value]) for values in list(zip(*runs, strict=True))[:2])
    rows = [
        {"what": "bare model", "records per second": bare_rate, "share of the bare model": 1.0},
        {"what": "run, workers up", "records per second": up, "share of the bare model": up / bare_rate},
        {"what": "run, wall clock", "records per second": whole, "share of the bare model": whole / bare_rate},
    ]
    memory = max(side.memory or 0 for side in runs)
    growth = max(side.growth or 0 for side in runs)
    alone = one_record(args.kernel, args.model)
    show(
        "end_to_end",
        rows,
        records=len(paths),
        processes=args.processes,
        model=args.model,
        repeats=args.repeats,
        worker_memory_mb=memory,
        worker_growth_mb=growth,
        one_record_ms=alone,
        each={name: [side.rate for side in results] for name, results in sides.items()},
    )


if __name__ == "__main__":
    main()
