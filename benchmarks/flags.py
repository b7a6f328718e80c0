"""How often each flag and each reason of failure comes in an archive, and what its amplitudes and residuals are."""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from measure import archive_or_synthetic, show

from ecgbatch.models.kernels.compiled import clean
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.quality import Quality
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Flag, RecordError

PERCENTILES = (0, 0.1, 1, 50, 99, 99.9, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, nargs="?", help="default: 64 synthetic records")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    qualities: list[Quality] = []
    with archive_or_synthetic(args.archive) as archive:
        for record in Archive(archive).records():
            try:
                recording = read(archive, record.path)
            except RecordError as error:
                counts[error.reason] += 1
                continue
            _, (quality,) = clean(recording.signal[None], Normalization())
            qualities.append(quality)
            counts.update({*recording.flags, *quality.flags()})
    total = len(qualities) + sum(count for name, count in counts.items() if name not in set(Flag))
    rows = [{"what": name, "records": count, "percent": 100 * count / total} for name, count in counts.most_common()]
    spread = {
        name: dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).round(4).tolist(), strict=True))
        for name, values in zip(Quality._fields, np.array(qualities).T, strict=True)
    }
    show("flags", rows, records=total, percentiles=spread)


if __name__ == "__main__":
    main()
