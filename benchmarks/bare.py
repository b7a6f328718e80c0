"""The bare model: processes of one thread that score cleaned records which they hold in memory, and do nothing else."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

MOST_RECORDS = 1024
"""Records that one process holds, 48 kB each; it goes over them again where it has more to score."""


def rate(archive: Path, paths: Sequence[str], processes: int, kernel: str, model: str) -> float:
    """Records per second of as many processes, from their common start until the last has scored its share."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    barrier, spans = context.Barrier(processes), context.SimpleQueue()
    shares = [paths[number::processes] for number in range(processes)]
    workers = [context.Process(target=_score, args=(archive, share, kernel, model, barrier, spans)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit(f"a process of the bare model ended with status {worker.exitcode}")
    began, ended = zip(*(spans.get() for _ in workers), strict=True)
    seconds: float = max(ended) - min(began)
    return len(paths) / seconds


def _score(archive: Path, paths: Sequence[str], kernel: str, model: str, barrier: Barrier, spans: Any) -> None:
    import numpy as np

    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import SHIPPED, Registry
    from ecgbatch.records.reading import read

    scorer = Scorer(Registry(SHIPPED).find(model), "cpu", kernel)
    size = scorer.batch_size
    signals = [read(archive, path).signal for path in paths[:MOST_RECORDS]]
    cleaned, _ = scorer.clean(np.stack(signals))
    metadata = np.full((len(cleaned), 2), (60.0, 0.0), np.float32)
    groups = [slice(start, start + size) for start in range(0, len(cleaned), size)]
    barrier.wait()
    began = time.perf_counter()
    left = len(paths)
    while left > 0:
        for group in groups:
            batch = slice(group.start, min(group.start + left, group.stop))
            left -= len(scorer.score(cleaned[batch], metadata[batch]))
            if left <= 0:
                break
    spans.put((began, time.perf_counter()))
