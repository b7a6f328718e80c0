"""The probabilities of records at 500 Hz against those of their twins at 100 Hz, as PTB-XL has both of each ECG.

The twins of PTB-XL were made by its authors; a record at 500 Hz is brought to 100 Hz as it is read. The two differ most
in the half seconds at the ends: the last row is of records that have their twins' ends.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measure import show
from numpy.typing import NDArray

from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEADS
from ecgbatch.records.reading import read
from ecgbatch.settings import load

ENDS = 50
"""Samples at 100 Hz."""
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")


@contextmanager
def twins_of(archive: Path | None) -> Iterator[Path]:
    """The archive, or one of a few wandering signals at both rates."""
    if archive is not None:
        yield archive
        return
    with TemporaryDirectory(prefix="ecgbatch-twins-") as folder:
        for number in range(4):
            slow = np.random.default_rng(number).standard_normal((1000, 12)).cumsum(axis=0) * 20
            at = np.arange(5000) / 5
            fast = np.stack([np.interp(at, np.arange(1000), lead) for lead in slow.T], axis=1)
            for kind, rate, values in (("lr", 100, slow), ("hr", 500, fast)):
                place = Path(folder) / f"records{rate}"
                place.mkdir(exist_ok=True)
                lines = [f"r{number}_{kind} 12 {rate} {len(values)}"]
                lines += [f"r{number}_{kind}.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
                (place / f"r{number}_{kind}.hea").write_text("\n".join([*lines, ""]))
                (place / f"r{number}_{kind}.dat").write_bytes(np.clip(values, -9999, 9999).astype("<i2").tobytes())
        yield Path(folder)


def differences(scorer: Scorer, fast: NDArray[np.float64], slow: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6,): of each probability of two signals of one ECG, and the largest of those with the same ends."""
    middle = slow.copy()
    middle[ENDS:-ENDS] = fast[ENDS:-ENDS]
    of_fast, of_slow, of_middle = (probabilities(scorer, signal) for signal in (fast, slow, middle))
    return np.abs([*(of_fast - of_slow), np.abs(of_middle - of_slow).max()])


def probabilities(scorer: Scorer, signal: NDArray[np.float64]) -> NDArray[np.float32]:
    """(5,), with neither age nor sex."""
    cleaned, _ = scorer.clean(signal[None])
    scores = scorer.score(cleaned, np.array([scorer.metadata(None, None)[0]], np.float32))
    return scores.reshape(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="with records500 and records100; default: made-up twins")
    parser.add_argument("--records", type=int, default=200)
    args = parser.parse_args()
    settings = load()
    model = Registry(settings.model_dir).find(settings.model)
    scorer = Scorer(model)
    with twins_of(args.archive) as archive:
        found = sorted(path.relative_to(archive).with_suffix("") for path in archive.glob("records500/**/*_hr.hea"))
        fast = [str(path) for path in found[: args.records]]
        slow = [path.replace("records500", "records100").removesuffix("_hr") + "_lr" for path in fast]
        pairs = ((read(archive, f).signal, read(archive, s).signal) for f, s in zip(fast, slow, strict=True))
        *five, middle = np.array([differences(scorer, *pair) for pair in pairs]).T
    columns = {**dict(zip(SUPERCLASSES, five, strict=True)), "largest of the five": np.max(five, axis=0)}
    columns["of the same ends"] = middle
    rows = [
        {"superclass": name, "median": np.median(of), "95 %": np.percentile(of, 95), "largest": of.max()}
        for name, of in columns.items()
    ]
    rows = [{key: value if key == "superclass" else float(value) for key, value in row.items()} for row in rows]
    show("twins", rows, records=len(fast), model=f"{model.name}:{model.version}")


if __name__ == "__main__":
    main()
