"""Ray Data doing the same by the same model, reading, cleaning and scoring in a pool of actors, against `run`.

Ray is no dependency of ecgbatch; where it is not installed (`pip install "ray[data]"`) or does not run, the benchmark
says so and ends well.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from end_to_end import run
from measure import BEST, CORES, archive_or_synthetic, first_records, in_turn, median, show


class Score:
    """An actor: the resident model, as in a worker process."""

    def __init__(self, archive: Path) -> None:
        from ecgbatch.models.scorer import Scorer
        from ecgbatch.models.weights.registry import SHIPPED, Registry

        self.archive = archive
        self.scorer = Scorer(Registry(SHIPPED).find(BEST))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        from ecgbatch.records.reading import read

        began = time.time()
        signals, _ = self.scorer.clean(np.stack([read(self.archive, str(path)).signal for path in batch["item"]]))
        metadata = np.full((len(signals), 2), (60.0, 0.0), np.float32)
        probabilities = self.scorer.score(signals, metadata)
        return {"path": batch["item"], "probabilities": probabilities, "began": np.full(len(signals), began)}


def ray_data(archive: Path, paths: list[str], processes: int) -> tuple[float, float]:
    """Records per second since the first batch began, and over all, with the start of the actors but not of Ray."""
    import ray

    start_ray()
    began = time.time()
    records = ray.data.from_items(paths, override_num_blocks=4 * processes)
    actors = ray.data.ActorPoolStrategy(size=processes)
    scored = records.map_batches(Score, fn_constructor_args=(archive,), batch_size=32, compute=actors, num_cpus=1)
    results = scored.materialize()
    ended = time.time()
    starts = [row["began"] for row in results.iter_rows()]
    ray.shutdown()  # so that it takes nothing from the other side
    if len(starts) != len(paths):
        raise SystemExit(f"Ray Data scored {len(starts)} of {len(paths)} records")
    return len(paths) / (ended - min(starts)), len(paths) / (ended - began)


def start_ray() -> str | None:
    """Starts Ray on this machine; why it did not, if so."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    try:
        import ray
        import ray.data

        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
    except Exception as error:  # whatever keeps Ray from running here is the result
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, help="the first N; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if why_not := start_ray():
        print(f"Ray Data does not run here ({why_not})")
        print(json.dumps({"benchmark": "ray_data", "skipped": why_not}))
        return
    import ray

    ray.shutdown()
    with archive_or_synthetic(args.archive) as archive:
        paths = first_records(archive, args.records)
        results = in_turn(
            {
                "Ray Data": lambda: ray_data(archive, paths, CORES),
                "ecgbatch run": lambda: run(archive, paths, CORES, "auto", BEST)[:2],
            },
            args.repeats,
        )
    rows = []
    for name, rates in results.items():
        up, whole = (median(values) for values in zip(*rates, strict=True))
        rows.append({"what": name, "records per second, workers up": up, "with their start": whole})
    show("ray_data", rows, records=len(paths), processes=CORES, repeats=args.repeats, each=results)


if __name__ == "__main__":
    main()
