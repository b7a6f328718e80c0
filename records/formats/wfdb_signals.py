"""The samples of a WFDB signal file, in any of its formats."""

import io
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.formats.library import library
from ecgbatch.records.formats.wfdb_header import Signal
from ecgbatch.records.recording import Reason, RecordError

Bytes = NDArray[np.uint8]
Samples = NDArray[np.integer]

MOST_SAMPLES = 8_000_000
_MATLAB_TYPES = {16: 30, 32: 20, 80: 50}


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
            return _flac_frames(self)
        return self._frames_in(self.size)

    def _frames_in(self, size: int) -> int:
        return int(8 * max(0, size - self.offset) / (self.frame * _FORMATS[self.format].bits))


def check(file: SignalFile) -> None:
    """Raises RecordError if the file is in no known format, in more than one, or not what its header says."""
    if file.format not in _FORMATS and not file.is_compressed:
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
    """(at most `frames`, samples of a frame), as many as were kept of the file; format 8 in differences."""
    if frames * file.frame > MOST_SAMPLES:
        detail = f"{file.frame} samples per frame are more than a recording should have"
        raise RecordError(Reason.TOO_LARGE, detail)
    if file.is_compressed:
        return _decompress(file, frames)
    form = _FORMATS[file.format]
    count = min(frames, file.most_frames) * file.frame
    content = np.frombuffer(file.data, np.uint8, offset=min(file.offset, len(file.data)))
    return form.unpack(content, count).reshape(-1, file.frame)


def select(file: SignalFile, frames: Samples, index: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(count,) samples of the file's signal `index`, and which of them are missing.

    frames: as `unpack` gives them. Of several samples in a frame the mean is taken, cut to a whole number as wfdb
    does; a signal with a skew begins that many frames later, and what is then not in the file is missing.
    """
    signal = file.signals[index]
    before = sum(s.per_frame for s in file.signals[:index])
    own = frames[:, before : before + signal.per_frame].astype(np.int64)
    if signal.format == 8:
        own = signal.initial + own.cumsum().reshape(own.shape)
    invalid = (own == INVALID_SAMPLE.get(signal.format, _NEVER)).any(axis=1)
    mean = own[:, 0] if signal.per_frame == 1 else np.trunc(own.sum(axis=1) / signal.per_frame).astype(np.int64)
    mean, invalid = mean[signal.skew :][:count], invalid[signal.skew :][:count]
    if (beyond := count - len(mean)) == 0:
        return mean, invalid
    return np.pad(mean, (0, beyond)), np.pad(invalid, (0, beyond), constant_values=True)


# ------------------------------------------------------------------------------------------ formats


class _Format(NamedTuple):
    """How many bits a sample takes, and how the first samples are taken from bytes that hold them."""

    bits: int | Fraction
    unpack: Callable[[Bytes, int], Samples]


def _numbers(dtype: str, zero: int = 0) -> Callable[[Bytes, int], Samples]:
    size = np.dtype(dtype).itemsize

    def unpack(content: Bytes, count: int) -> Samples:
        values: Samples = content[: count * size].view(dtype)
        return values.astype(np.int32) - zero if zero else values

    return unpack


def _unpack_24(content: Bytes, count: int) -> Samples:
    low, middle, high = content[: 3 * count].reshape(-1, 3).T.astype(np.int32)
    return _signed(low | middle << 8 | high << 16, 24)


def _unpack_212(content: Bytes, count: int) -> Samples:
    first, both, second = _blocks(content, count, 2, 3)
    return _signed(np.stack([first | (both & 0x0F) << 8, second | both >> 4 << 8], axis=1).ravel()[:count], 12)


def _unpack_310(content: Bytes, count: int) -> Samples:
    a, b, c, d = _blocks(content, count, 3, 4)
    first, second, third = a >> 1 | (b & 7) << 7, c >> 1 | (d & 7) << 7, b >> 3 | d >> 3 << 5
    return _signed(np.stack([first, second, third], axis=1).ravel()[:count], 10)


def _unpack_311(content: Bytes, count: int) -> Samples:
    a, b, c, d = _blocks(content, count, 3, 4)
    first, second, third = a | (b & 3) << 8, b >> 2 | (c & 15) << 6, c >> 4 | (d & 63) << 4
    return _signed(np.stack([first, second, third], axis=1).ravel()[:count], 10)


def _blocks(content: Bytes, count: int, samples: int, size: int) -> NDArray[np.int32]:
    """(size, blocks): the bytes of the blocks of `samples` samples that hold the first `count`; zeros at the end."""
    needed = -(-count // samples) * size
    have = content[:needed]
    return np.pad(have, (0, needed - len(have))).reshape(-1, size).T.astype(np.int32)


def _signed(values: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Two's complement of `bits` bits."""
    half = 1 << (bits - 1)
    return (values ^ half) - half


_FORMATS = {
    8: _Format(8, _numbers("i1")),
    16: _Format(16, _numbers("<i2")),
    24: _Format(24, _unpack_24),
    32: _Format(32, _numbers("<i4")),
    61: _Format(16, _numbers(">i2")),
    80: _Format(8, _numbers("u1", 128)),
    160: _Format(16, _numbers("<u2", 32768)),
    212: _Format(12, _unpack_212),
    310: _Format(Fraction(32, 3), _unpack_310),
    311: _Format(Fraction(32, 3), _unpack_311),
}
_COMPRESSED = (508, 516, 524)
_NEVER = 2**62
INVALID_SAMPLE = {
    16: -(2**15),
    24: -(2**23),
    32: -(2**31),
    61: -(2**15),
    80: -(2**7),
    160: -(2**15),
    212: -(2**11),
    310: -(2**9),
    311: -(2**9),
    508: -(2**7),
    516: -(2**15),
    524: -(2**23),
}


def _flac_frames(file: SignalFile) -> int:
    soundfile = library("soundfile", "soundfile")
    try:
        frames = soundfile.info(io.BytesIO(file.data)).frames
    except soundfile.SoundFileError as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"{file.name} is no FLAC file") from error
    return max(0, int(frames) - file.offset) // file.signals[0].per_frame


def _decompress(file: SignalFile, frames: int) -> Samples:
    soundfile = library("soundfile", "soundfile")
    per_frame = file.signals[0].per_frame
    if any(s.per_frame != per_frame for s in file.signals):
        raise RecordError(Reason.UNREADABLE_HEADER, f"the signals of {file.name} differ in samples per frame")
    try:
        with soundfile.SoundFile(io.BytesIO(file.data)) as flac:
            shift = {"PCM_S8": 24, "PCM_24": 8, "PCM_16": 16}.get(flac.subtype)
            if shift is None or 32 - shift > file.format - 500 or flac.channels != len(file.signals):
                detail = f"{file.name} has other channels or bits than its header says"
                raise RecordError(Reason.UNREADABLE_SIGNAL, detail)
            flac.seek(file.offset)
            values = flac.read(frames * per_frame, dtype="int32", always_2d=True) >> shift
    except soundfile.SoundFileError as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"{file.name} is no sound FLAC file") from error
    whole = len(values) // per_frame
    by_signal = values[: whole * per_frame].reshape(whole, per_frame, len(file.signals)).transpose(0, 2, 1)
    samples: Samples = by_signal.reshape(whole, -1)
    return samples
