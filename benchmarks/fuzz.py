"""Damaged WFDB records by the thousand: no crash, no hang, no growth, always a reason, and every reader gives the same.

Each input is a sound record of a random kind (format, rate, order of leads, files, MATLAB, segments) with up to four
damages to its header and its signal files. It is read by the compiled reader, by the one in Python and, where there is
something to read, by the package wfdb. The same number is the same input.

wfdb is not right about a few: it takes a bit too many of format 311, averages samples marked as invalid, takes the
wrong signals of files whose signals are not listed one after the other, and the first segment's gains and order of
leads for all. Inputs that are read otherwise than by wfdb are named, to be looked at; they are no fault by themselves.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measure import show
from numpy.typing import NDArray

from ecgbatch.records import formats
from ecgbatch.records.files import Files
from ecgbatch.records.finishing import finish, rational_rate
from ecgbatch.records.formats import wfdb_compiled
from ecgbatch.records.leads import LEADS, lead_of
from ecgbatch.records.reading import SECONDS_OF_ZEROS, read
from ecgbatch.records.recording import MIN_SECONDS, SECONDS, RecordError, Recording
from ecgbatch.records.resampling import resample

BATCH = 5000
SLOW_SECONDS = 1.0
GROWTH_MB = 64
Random = np.random.Generator

BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 10, "311": 10, "8": 8}
NASTY = (
    *("0", "-1", "1", "12", "13", "1e9", "1e400", "nan", "inf", "-", "", "~", "#", "/", "..", "9" * 20, "1" * 300),
    *("16x2", "16:3", "16+24", "212", "516", "8", "311", "99", "200(5)/uV", "0/V", "1000(0)/", "(", "mV", "\0"),
    *("r.dat", "x.dat", "../r.dat", "r/2", "s1", "V1", "-V1", "I", "100/200(3)", "500", "99999", "0.0001", "333.333"),
)


# ------------------------------------------------------------------------------------------ inputs


def write(folder: Path, random: Random) -> None:
    """A sound record `r` of a random kind."""
    rate = str(random.choice(["100", "100", "250", "257", "400", "500", "333.333"]))
    frames = int(float(rate) * random.choice([10, 10, 10.4, 7.3, 21]))
    order = random.permutation(12) if random.random() < 0.3 else np.arange(12)
    names = [LEADS[at] for at in order]
    gain = str(random.choice(["1000(0)/mV", "200/mV", "1(-3)/uV", "204.75(12)/mV"]))
    if random.random() < 0.1:
        write_segments(folder, rate, frames, names, gain, random)
    else:
        (folder / "r.hea").write_text(write_signals(folder, "r", rate, frames, names, gain, random))


def write_segments(folder: Path, rate: str, frames: int, names: list[str], gain: str, random: Random) -> None:
    lengths = [frames // 3, frames // 3, frames - 2 * (frames // 3)]
    for number, length in enumerate(lengths):
        header = write_signals(folder, f"s{number}", rate, length, names, gain, random)
        (folder / f"s{number}.hea").write_text(header)
    lines = [f"r/3 12 {rate} {frames}", *(f"s{number} {length}" for number, length in enumerate(lengths))]
    (folder / "r.hea").write_text("\n".join(lines) + "\n")


def write_signals(folder: Path, name: str, rate: str, frames: int, names: list[str], gain: str, random: Random) -> str:
    form = str(random.choice(list(BITS))) if random.random() < 0.4 else "16"
    matlab = form == "16" and random.random() < 0.3
    split = 12 if matlab or random.random() < 0.8 else int(random.integers(1, 12))
    lines = [f"{name} 12 {rate} {frames}"]
    for part, own in enumerate((names[:split], names[split:])):
        if not own:
            continue
        bits = BITS[form]
        digital = np.clip(random.standard_normal((frames, len(own))).cumsum(axis=0) * 2 ** (bits - 8), *limits(bits))
        digital = digital.astype(np.int64)
        file = f"{name}{part or ''}.{'mat' if matlab else 'dat'}"
        before = np.array([30, 12, frames, 0, 4], "<i4").tobytes() + b"val\0" if matlab else b""
        (folder / file).write_bytes(before + packed(digital, form))
        sums = digital.sum(axis=0) % 65536
        offset = "+24" if matlab else ""
        for total, lead in zip(sums, own, strict=True):
            lines.append(f"{file} {form}{offset} {gain} {bits} 0 0 {total} 0 {lead}")
    return "\n".join([*lines, "#Age: 60"]) + "\n"


def limits(bits: int) -> tuple[int, int]:
    return 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1


def packed(digital: NDArray[np.int64], form: str) -> bytes:
    """Samples in a format; those of several in some bytes hold whatever comes of random bytes."""
    dtypes = {"16": "<i2", "32": "<i4", "61": ">i2"}
    if form in dtypes:
        return digital.astype(dtypes[form]).tobytes()
    if form == "80":
        return (digital + 128).astype("u1").tobytes()
    if form == "160":
        return (digital + 32768).astype("<u2").tobytes()
    return (digital & 0xFF).astype("u1").tobytes() * 3


def damage(folder: Path, random: Random) -> None:
    for _ in range(random.choice([0, 1, 1, 1, 2, 3, 4])):
        files = sorted(folder.iterdir())
        file = files[random.integers(len(files))] if random.random() < 0.5 else folder / "r.hea"
        if not file.exists():
            continue
        content = file.read_bytes()
        kinds = HEADER_DAMAGES if file.suffix == ".hea" else (damage_bytes,)
        change = kinds[random.integers(len(kinds))]
        file.write_bytes(change(content, random))


def damage_bytes(content: bytes, random: Random) -> bytes:
    if not content:
        return b"x"
    at, to = sorted(random.integers(0, len(content) + 1, 2).tolist())
    kind = random.integers(5)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[to:]
    if kind == 2:
        return content[:at] + bytes(to - at) + content[to:]
    if kind == 3:
        return content[:at] + random.bytes(min(8, to - at)) + content[at + min(8, to - at) :]
    marks = b"\x00\x80" * int((to - at) // 64)
    return content[:at] + marks + content[at + len(marks) :]


def damage_token(content: bytes, random: Random) -> bytes:
    lines = content.decode("latin-1").split("\n")
    line = random.integers(len(lines))
    words = lines[line].split(" ")
    plain = random.random() < 0.5
    words[random.integers(len(words))] = str(random.integers(0, 2000) if plain else random.choice(NASTY))
    lines[line] = " ".join(words)
    return "\n".join(lines).encode("latin-1", "replace")


def damage_letter(content: bytes, random: Random) -> bytes:
    at = int(random.integers(max(1, len(content))))
    return content[:at] + bytes([random.choice([*b" \t\n\r/+-.:x()#019eV", random.integers(256)])]) + content[at + 1 :]


def damage_lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    one, other = random.integers(len(lines), size=2)
    kind = random.integers(4)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines.insert(other, lines[one])
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines[one] = lines[one].replace(b" ", b"\t  ")
    return b"\n".join(lines)


HEADER_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(damage_token, damage_token, damage_token, damage_letter, damage_letter, damage_lines, damage_bytes),
)


# ------------------------------------------------------------------------------------------ what comes of them


def outcome(folder: Path) -> Recording | RecordError:
    try:
        return read(folder, "r")
    except RecordError as error:
        return error


def in_python(folder: Path) -> Recording:
    """As `read` does it for records that the compiled reader leaves."""
    files = Files(folder)
    decoded = formats.decode(files, "r", None, SECONDS)
    if decoded.begins_with_nothing and decoded.is_cut:
        files = Files(folder)
        decoded = formats.decode(files, "r", None, SECONDS + SECONDS_OF_ZEROS)
    return finish(decoded, files.sha256, MIN_SECONDS)


def are_the_same(one: Recording, other: Recording) -> bool:
    alike = (one.sha256, one.flags, one.age, one.sex) == (other.sha256, other.flags, other.age, other.sex)
    return alike and one.signal.tobytes() == other.signal.tobytes()


def by_wfdb(folder: Path) -> NDArray[np.float64] | None:
    """The first ten seconds as wfdb reads them, at 100 Hz; None where it does not, or not all twelve leads."""
    import wfdb

    try:
        record = wfdb.rdrecord(str(folder / "r"))
        rate = rational_rate(record.fs)
        found = [lead_of(name or "") for name in record.sig_name]
        signal = record.p_signal[: math.ceil(SECONDS * rate), [found.index(lead) for lead in LEADS]]
        factors = {"mV": 1.0, "uV": 1e3, "V": 1e-3}
        signal = signal / [factors[record.units[found.index(lead)]] for lead in LEADS]
    except Exception:  # wfdb raises about anything
        return None
    return resample(signal, rate)[:1000] if rate != 100 and len(signal) > 1 else signal


def try_one(number: int, tally: Counter[str]) -> None:
    random = np.random.default_rng(number)
    with TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, random)
        damage(folder, random)
        began = time.process_time()  # not on the clock: others may want the machine
        recording = outcome(folder)
        seconds = time.process_time() - began
        if seconds > SLOW_SECONDS:
            wrong(tally, number, f"took {seconds:.1f} s")
        if isinstance(recording, RecordError):
            tally["refused"] += 1
            tally[f"refused: {recording.reason}"] += 1
            if not recording.detail.isprintable() or not recording.detail:
                wrong(tally, number, "a reason without a printable line")
            return
        tally["read"] += 1
        compare(folder, number, recording, tally)


def compare(folder: Path, number: int, recording: Recording, tally: Counter[str]) -> None:
    if not are_the_same(recording, in_python(folder)):
        wrong(tally, number, "Python reads it otherwise")
    if compiled := wfdb_compiled.read(folder, "r", MIN_SECONDS, False):
        tally["read by the compiled reader"] += 1
        if not are_the_same(compiled, recording):
            wrong(tally, number, "the compiled reader reads it otherwise")
    if {"gap_filled", "leads_derived"} & set(recording.flags) or (theirs := by_wfdb(folder)) is None:
        return
    if theirs.shape != recording.signal.shape or not np.isfinite(theirs).all():
        tally["cut or filled otherwise than by wfdb"] += 1
    elif np.allclose(theirs, recording.signal, rtol=1e-9, atol=1e-9):
        tally["as wfdb"] += 1
    else:
        tally["otherwise than wfdb"] += 1
        print(f"input {number}: otherwise than wfdb", file=sys.stderr)


def wrong(tally: Counter[str], number: int, what: str) -> None:
    tally["wrong"] += 1
    print(f"input {number}: {what}", file=sys.stderr)


def try_batch(first: int, count: int) -> Counter[str]:
    tally: Counter[str] = Counter()
    warm = 0
    for done, number in enumerate(range(first, first + count)):
        try_one(number, tally)
        if done == min(500, count // 2):
            warm = megabytes()
    if megabytes() - warm > GROWTH_MB:
        wrong(tally, first, f"grew from {warm} to {megabytes()} MB")
    tally["most memory, MB"] = megabytes()
    return tally


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--here", action="store_true", help="in this process, not in batches of their own")
    args = parser.parse_args()
    if args.here:
        for name, value in try_batch(args.first, args.inputs).items():
            print(f"{value} {name}")
        return
    began = time.perf_counter()
    total: Counter[str] = Counter()
    for first in range(args.first, args.first + args.inputs, BATCH):
        count = min(BATCH, args.first + args.inputs - first)
        line = [sys.executable, __file__, "--here", "--first", str(first), "--inputs", str(count)]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = Counter({name: int(value) for value, name in (row.split(" ", 1) for row in done.stdout.splitlines())})
        most = max(total.pop("most memory, MB", 0), found.pop("most memory, MB", 0))
        total += found
        total["most memory, MB"] = most
        if done.returncode:
            total["wrong"] += 1
            print(f"inputs {first} to {first + count}: ended with {done.returncode}", file=sys.stderr)
    rows = [{"what": name, "inputs": value} for name, value in sorted(total.items())]
    show("fuzz", rows, inputs=args.inputs, first=args.first, seconds=round(time.perf_counter() - began))
    sys.exit(1 if total["wrong"] else 0)


if __name__ == "__main__":
    main()
