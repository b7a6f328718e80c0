"""The published way (published.py) against the bare model and against `ecgbatch run`, in turn.

All but the last row score by the published network. The published way reads, filters and scores one record after the
other, once with as many threads as torch takes by itself and once with one; the faster of the two is what the others
are compared with. Its probabilities are checked.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import bare
import numpy as np
from end_to_end import run
from measure import BEST, CORES, PUBLISHED, archive_or_synthetic, first_records, in_turn, median, show

TOLERANCE = 1e-5
"""Largest difference in probability that float32 allows."""

THE_PUBLISHED_WAY = """
import json, sys, time
from pathlib import Path
import numpy as np, torch
from ecgbatch.models.weights.registry import SHIPPED, Registry
from published import PublishedNetwork, read_and_clean

archive, wanted, threads, *paths = sys.argv[1:]
if threads != "default":
    torch.set_num_threads(int(threads))
model = Registry(SHIPPED).find(wanted)
network = PublishedNetwork(model.weights(), model.config.heads)
metadata = np.array([[60.0, 0.0]], np.float32)
def score(path):
    signal = read_and_clean(Path(archive) / path, model.normalization.mean, model.normalization.std)
    return network(signal[None], metadata)[0].tolist()
score(paths[0])
began = time.perf_counter()
probabilities = [score(path) for path in paths]
print(json.dumps({"seconds": time.perf_counter() - began, "threads": torch.get_num_threads(), "p": probabilities}))
"""


def published(archive: Path, paths: list[str], threads: str) -> tuple[float, list[list[float]]]:
    """Records per second and probabilities; in a process of its own, where torch finds its own number of threads."""
    command = [sys.executable, "-c", THE_PUBLISHED_WAY, str(archive), PUBLISHED, threads, *paths]
    done = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    return len(paths) / result["seconds"], result["p"]


def ours(archive: Path, paths: list[str]) -> list[list[float]]:
    """The probabilities of the kernel in use."""
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import SHIPPED, Registry
    from ecgbatch.records.reading import read

    scorer = Scorer(Registry(SHIPPED).find(PUBLISHED))
    signals, _ = scorer.clean(np.stack([read(archive, path).signal for path in paths]))
    probabilities: list[list[float]] = scorer.score(signals, np.full((len(paths), 2), (60.0, 0.0), np.float32)).tolist()
    return probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, help="the first N; default: all")
    parser.add_argument("--published", type=int, default=20, metavar="N", help="records that go the published way")
    parser.add_argument("--torch", type=int, default=1024, metavar="N", help="records for the bare model in torch")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with archive_or_synthetic(args.archive) as archive:
        paths = first_records(archive, args.records)
        few, some = at_100_hz(archive, paths, args.published), paths[: args.torch]
        expected = ours(archive, few)
        error = 0.0

        def one_by_one(threads: str) -> float:
            nonlocal error
            rate, probabilities = published(archive, few, threads)
            error = max(error, float(np.abs(np.array(probabilities) - np.array(expected)).max()))
            return rate

        sides = {
            "published, torch's threads": lambda: one_by_one("default"),
            "published, 1 thread": lambda: one_by_one("1"),
            "bare model, torch": lambda: bare.rate(archive, some, CORES, "torch", PUBLISHED),
            "bare model, compiled": lambda: bare.rate(archive, paths, CORES, "compiled", PUBLISHED),
            "run, workers up": lambda: run(archive, paths, CORES, "auto", PUBLISHED).rate,
            "run with the default model, workers up": lambda: run(archive, paths, CORES, "auto", BEST).rate,
        }
        from ecgbatch.models.kernels import compiled

        if not compiled.available():
            del sides["bare model, compiled"]
        results = in_turn(sides, args.repeats)
    if error > TOLERANCE:
        raise SystemExit(f"the published way gives other probabilities: they differ by {error}")
    rates = {name: median(values) for name, values in results.items()}
    base = max(rate for name, rate in rates.items() if name.startswith("published"))
    rows = [{"what": name, "records per second": rate, "times as fast": rate / base} for name, rate in rates.items()]
    show("against_published", rows, records=len(paths), processes=CORES, largest_difference=error, each=results)


def at_100_hz(archive: Path, paths: list[str], count: int) -> list[str]:
    """The first `count` records that need no resampling, which the published way does not do."""
    import wfdb

    fitting = (path for path in paths if wfdb.rdheader(str(archive / path)).fs == 100)
    return [path for path, _ in zip(fitting, range(count), strict=False)]


if __name__ == "__main__":
    main()
