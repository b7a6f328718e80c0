"""The files that `model export` writes against the compiled kernel, one thread: size, macro AUC, speed, in turn.

The records are those of fold 9 of PTB-XL, cleaned beforehand. Without an archive they are synthetic, and their labels
are made up.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import BEST, archive_or_synthetic, first_records, in_turn, median, show

BATCH = 64
FILES: dict[str, dict[str, Any]] = {
    "ONNX": {"file_format": "onnx"},
    "ONNX, int8": {"file_format": "onnx", "int8": True},
    "TorchScript": {"file_format": "torchscript"},
}

Score = Callable[[Any, Any], Any]


def labelled(archive: Path, count: int | None) -> list[Any]:
    """The first `count` records of fold 9 with a superclass, or of an archive without labels, with labels made up."""
    from ecgbatch.models.evaluation.labels import LabelledRecord
    from ecgbatch.models.evaluation.ptbxl import labelled_records

    if (archive / "ptbxl_database.csv").exists():
        return [record for record in labelled_records(archive / "ptbxl_database.csv") if record.fold == 9][:count]
    paths = enumerate(first_records(archive, count))
    return [LabelledRecord(path, 9, 60.0, 0.0, (number % 2,) * 5, ()) for number, path in paths]


def opened(path: Path) -> Score:
    """What scores by the file."""
    if path.name == "TorchScript":
        import torch

        network = torch.jit.load(path)
        return lambda *inputs: network(*map(torch.from_numpy, inputs)).detach().numpy()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda signal, metadata: session.run(None, {"signal": signal, "metadata": metadata})[0]


def scored(score: Score, signals: Any, metadata: Any) -> tuple[float, Any]:
    """Records per second and the probabilities."""
    import numpy as np

    batches = [slice(start, start + BATCH) for start in range(0, len(signals), BATCH)]
    score(signals[:1], metadata[:1])
    began = time.perf_counter()
    probabilities = np.concatenate([score(signals[batch], metadata[batch]) for batch in batches])
    return len(signals) / (time.perf_counter() - began), probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="default: 64 synthetic records")
    parser.add_argument("--records", type=int, help="the first N; default: all of fold 9")
    parser.add_argument("--model", default=BEST, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np

    from ecgbatch.models.evaluation.metrics import roc_auc
    from ecgbatch.models.export.export import export
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import Registry
    from ecgbatch.records.reading import read
    from ecgbatch.settings import load

    scorer = Scorer(Registry(load().model_dir).find(args.model))
    with archive_or_synthetic(args.archive) as archive, tempfile.TemporaryDirectory() as folder:
        records = labelled(archive, args.records)
        signals, _ = scorer.clean(np.stack([read(archive, record.path).signal for record in records]))
        metadata = np.array([scorer.metadata(record.age, record.sex).values for record in records], np.float32)
        labels = np.array([record.labels for record in records])
        paths = {name: Path(folder) / name for name in FILES}
        for name, options in FILES.items():
            export(scorer.model, paths[name], **options)
        sides: dict[str, Score] = {f"{scorer.kernel} kernel": scorer.score}
        sides |= {name: opened(path) for name, path in paths.items()}
        results = in_turn({n: partial(scored, s, signals, metadata) for n, s in sides.items()}, args.repeats)
        sizes = {name: paths.get(name, scorer.model.weights_path).stat().st_size / 1e6 for name in sides}
    expected = results[f"{scorer.kernel} kernel"][0][1]
    rows = []
    for name, repeats in results.items():
        probabilities = repeats[0][1]
        auc = np.mean([roc_auc(labels[:, label], probabilities[:, label]) for label in range(labels.shape[1])])
        rows.append(
            {
                "what": name,
                "MB": sizes[name],
                "macro AUC": float(auc),
                "largest change in probability": float(np.abs(probabilities - expected).max()),
                "records per second": median([rate for rate, _ in repeats]),
            }
        )
    show("exported", rows, records=len(records), model=args.model, repeats=args.repeats)


if __name__ == "__main__":
    main()
