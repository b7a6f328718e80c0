"""The samples of a WFDB signal file: format 16 is decoded here, all others by the package wfdb.

wfdb is given a temporary folder with the bytes that were read and digested, and a header written here. So it opens no
other file, allocates no more than was found sound, and cannot understand the record's header otherwise than we do.
"""

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.formats.library import reading_with
from ecgbatch.records.formats.wfdb_header import Signal
from ecgbatch.records.recording import Reason, RecordError

Samples = NDArray[np.integer]

MOST_SAMPLES = 8_000_000
_MATLAB_TYPES = {16: 30, 32: 20, 80: 50}
_BITS: dict[int, int | Fraction] = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12}
_BITS |= {310: Fraction(32, 3), 311: Fraction(32, 3)}
_COMPRESSED = (508, 516, 524)
_INVALID_SAMPLE = {16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -(2**7), 160: -(2**15), 212: -(2**11)}
_INVALID_SAMPLE |= {310: -(2**9), 311: -(2**9), 508: -(2**7), 516: -(2**15), 524: -(2**23)}


class SignalFile(NamedTuple):
    """A signal file: its first bytes, its size, and what the header says of the signals in it."""

    data: bytes
    size: int
    signals: list[Signal]

    @property
    def name(self) -> str:
        return self.signals[0].file

    @property
    def format(self) -> int:
        return self.signals[0].format

    @property
    def offset(self) -> int:
        return self.signals[0].offset

    @property
    def is_compressed(self) -> bool:
        return self.format in _COMPRESSED

    @property
    def is_cut(self) -> bool:
        """Whether `data` is not the whole file."""
        return len(self.data) < self.size

    @property
    def frame(self) -> int:
        """Samples of a frame."""
        return sum(signal.per_frame for signal in self.signals)

    @property
    def most_frames(self) -> int:
        """How many samples of each signal can be taken of what was kept of the file."""
        fitting = MOST_SAMPLES // self.frame
        return fitting if self.is_compressed else min(fitting, self._frames_in(len(self.data)))

    def frames(self) -> int:
        """How many samples of each signal the file holds."""
        if self.is_compressed:
            return max(0, _flac_length(self) - self.offset) // self.signals[0].per_frame
        return self._frames_in(self.size)

    def _frames_in(self, size: int) -> int:
        return int(8 * max(0, size - self.offset) / (self.frame * _BITS[self.format]))


def check(file: SignalFile) -> None:
    """Raises RecordError if the file is in no known format, in more than one, or not what its header says."""
    if file.format not in _BITS and not file.is_compressed:
        detail = f"{file.name} is in format {file.format}, which WFDB does not know"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail)
    if any(s.format != file.format or s.offset not in (0, file.offset) for s in file.signals):
        raise RecordError(Reason.UNREADABLE_HEADER, f"the header gives {file.name} more than one format")
    if file.data[:10] in (b"MATLAB 5.0", b"MATLAB 7.3"):
        detail = f"{file.name} is a MATLAB {file.data[7:10].decode()} file; of a WFDB record it must be of version 4"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail)
    if file.name.lower().endswith(".mat") and not _is_matlab_4(file):
        detail = f"{file.name} is no MATLAB 4 matrix of the type and size that its header says"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail)


def _is_matlab_4(file: SignalFile) -> bool:
    """Whether a matrix of a row for each signal and of the header's type begins at the header's offset."""
    if len(file.data) < 20:
        return False
    kind, rows, columns, imaginary, name = np.frombuffer(file.data, "<i4", 5).tolist()
    layout = (kind, rows, imaginary, 20 + name)
    return columns > 0 and layout == (_MATLAB_TYPES.get(file.format), file.frame, 0, file.offset)


def unpack(file: SignalFile, frames: int) -> Samples:
    """(at most `frames`, samples of a frame), as many as were kept of the file; format 8 without its first value."""
    if frames * file.frame > MOST_SAMPLES:
        detail = f"{file.frame} samples per frame are more than a recording should have"
        raise RecordError(Reason.TOO_LARGE, detail)
    count = min(frames, file.most_frames)
    if file.format == 16:
        values = np.frombuffer(file.data, "<i2", count * file.frame, min(file.offset, len(file.data)))
        return values.reshape(count, file.frame)
    return _unpack_with_wfdb(file, count) if count else np.empty((0, file.frame), np.int32)


def _unpack_with_wfdb(file: SignalFile, count: int) -> Samples:
    header = [f"r {len(file.signals)} 100 {count}"]
    header += [f"r.dat {file.format}x{signal.per_frame}+{file.offset}" for signal in file.signals]
    try:
        with TemporaryDirectory(prefix="ecgbatch-wfdb-") as folder:
            Path(folder, "r.hea").write_text("\n".join(header))
            Path(folder, "r.dat").write_bytes(file.data)
            samples = _frames_by_wfdb(f"{folder}/r", count, file.frame == len(file.signals))
    except OSError as error:
        detail = f"it cannot be written to a temporary folder for wfdb ({error.strerror}): see TMPDIR"
        raise RecordError(Reason.UNREADABLE_SIGNAL, detail) from error
    if file.format == 311:
        # wfdb takes a bit too many of every third sample.
        samples = ((samples + 512) & 1023) - 512
    return samples


def _frames_by_wfdb(path: str, count: int, single: bool) -> Samples:
    """(count, samples of a frame), of frames of a `single` sample of each signal or of several."""
    import wfdb

    with reading_with("wfdb"):
        record = wfdb.rdrecord(path, physical=False, smooth_frames=single, return_res=32)
        by_signal = [record.d_signal] if single else [own.reshape(count, -1) for own in record.e_d_signal]
        samples: Samples = np.concatenate(by_signal, axis=1)
        return samples


def _flac_length(file: SignalFile) -> int:
    """How many samples of each signal there are by a FLAC file's first block; of others wfdb cannot find the end."""
    length = int.from_bytes(file.data[21:26]) & (1 << 36) - 1
    if not file.data.startswith(b"fLaC") or not length:
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"{file.name} is no FLAC file that tells its length")
    return length


def select(file: SignalFile, frames: Samples, index: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(count,) samples of the file's signal `index`, and which of them are missing.

    frames: as `unpack` gives them. Of several samples in a frame the mean is taken, cut to a whole number as wfdb
    does; a signal with a skew begins that many frames later, and what is then not in the file is missing.
    """
    signal = file.signals[index]
    before = sum(s.per_frame for s in file.signals[:index])
    own = frames[:, before : before + signal.per_frame].astype(np.int64)
    if signal.format == 8:
        own += signal.initial
    invalid = (own == _INVALID_SAMPLE.get(signal.format)).any(axis=1)
    mean = own[:, 0] if signal.per_frame == 1 else np.trunc(own.sum(axis=1) / signal.per_frame).astype(np.int64)
    mean, invalid = mean[signal.skew :][:count], invalid[signal.skew :][:count]
    if (beyond := count - len(mean)) == 0:
        return mean, invalid
    return np.pad(mean, (0, beyond)), np.pad(invalid, (0, beyond), constant_values=True)
