"""What a GPU scores: the network alone, and with the cleaning before it, at several sizes of batch.

On another device than a GPU the same code runs slowly.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from measure import BEST, PUBLISHED, archive_or_synthetic, first_records, in_turn, median, show
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ecgbatch.models.kernels.cuda import CudaNetwork

RECORDS = 2048  # in each repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--records", type=int, default=RECORDS, help="in each repeat; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    from ecgbatch.models.kernels.cuda import CudaNetwork
    from ecgbatch.models.signals import read_signal
    from ecgbatch.models.weights.registry import SHIPPED, Registry

    with archive_or_synthetic(options.archive) as archive:
        read = np.stack([read_signal(archive, path) for path in first_records(archive, max(options.batches))])
    rows = []
    for name in (BEST, PUBLISHED):
        model = Registry(SHIPPED).find(name)
        network = CudaNetwork(model.weights(), model.config, model.normalization, options.device)
        for batch in options.batches:
            signals = np.resize(read, (batch, *read.shape[1:]))
            metadata = np.tile(np.array([60, 1], np.float32), (batch, 1))
            sides: dict[str, Callable[[], object]] = {
                "network alone": partial(network, network.clean(signals)[0], metadata),
                "cleaned and scored": partial(clean_and_score, network, signals, metadata),
            }
            rates = {side: rate(work, batch, options.records) for side, work in sides.items()}
            found = in_turn(rates, options.repeats)
            rows.append(
                {"model": name, "batch": batch} | {side: f"{median(each):.0f}/s" for side, each in found.items()}
            )
    show("gpu", rows, device=options.device)


def clean_and_score(network: "CudaNetwork", signals: NDArray[np.float64], metadata: NDArray[np.float32]) -> object:
    return network(network.clean(signals)[0], metadata)


def rate(work: Callable[[], object], batch: int, records: int) -> Callable[[], float]:
    """How many records a second go through `work`, which takes a batch and ends with numbers on the CPU."""
    work()  # builds what is built once

    def measure() -> float:
        times = max(1, records // batch)
        began = time.perf_counter()
        for _ in range(times):
            work()
        return times * batch / (time.perf_counter() - began)

    return measure


if __name__ == "__main__":
    main()
