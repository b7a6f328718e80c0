"""How well shorter pieces of PTB-XL's records are scored: macro AUC of the first seconds of each record of fold 9.

Each length is an archive of its own, cut from the recordings at 100 Hz, that goes through `ecgbatch run` and
`ecgbatch model evaluate`.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import BEST, Workplace, show

LEADS, BYTES = 12, 2
RATE = 100
FOLD = "9"


def cut(archive: Path, shorter: Path, seconds: float) -> Path:
    """Writes the first seconds of the fold's records as an archive in the folder `shorter`; returns its table."""
    samples = round(seconds * RATE)
    with (archive / "ptbxl_database.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["strat_fold"] == FOLD]
    for row in rows:
        _cut_record(archive / row["filename_lr"], shorter / row["filename_lr"], samples)
    shutil.copy(archive / "scp_statements.csv", shorter)
    table = shorter / "ptbxl_database.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def _cut_record(whole: Path, piece: Path, samples: int) -> None:
    """A record of twelve leads of format 16 in one file; the checksums remain those of the whole."""
    piece.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = whole.with_suffix(".hea").read_text().splitlines()
    name, leads, rate, *_ = first.split()
    piece.with_suffix(".hea").write_text("\n".join([f"{name} {leads} {rate} {samples}", *rest]) + "\n")
    piece.with_suffix(".dat").write_bytes(whole.with_suffix(".dat").read_bytes()[: samples * LEADS * BYTES])


def evaluated(archive: Path, seconds: float, model: str) -> dict[str, Any]:
    """What `ecgbatch model evaluate` says of the pieces of this length."""
    with tempfile.TemporaryDirectory(prefix="ecgbatch-lengths-") as name:
        folder = Path(name)
        table = cut(archive, folder / "archive", seconds)
        workplace = Workplace(folder, model=model, min_seconds=seconds)
        workplace.run("run", folder / "archive")
        line = [sys.executable, "-m", "ecgbatch", "model", "evaluate", "1", "--labels", str(table), "--json"]
        done = subprocess.run(line, cwd=folder, env=workplace.environment, check=True, capture_output=True, text=True)
        scored = workplace.job().scored
    auc = json.loads(done.stdout)["figures"]["macro"]["auc"]
    return {"seconds": seconds, "records": scored} | {f"macro AUC, {name}": value for name, value in auc.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="PTB-XL, with ptbxl_database.csv and records100")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 9, 7.3, 5, 4, 2.5])
    parser.add_argument("--model", default=BEST)
    args = parser.parse_args()
    rows = [evaluated(args.archive.resolve(), seconds, args.model) for seconds in args.seconds]
    show("lengths", rows, model=args.model, fold=FOLD)


if __name__ == "__main__":
    main()
