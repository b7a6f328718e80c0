"""Runs work that may crash, hang or swallow memory in a forked process that can be lost without harm."""

import contextlib
import os
import pickle
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ecgbatch.records.recording import Reason, RecordError

T = TypeVar("T")

ATTEMPTS = 3
"""How often work may take its process down: once may be an accident of the machine."""


def run_in_fork(work: Callable[[], T], seconds: float) -> T:
    """What `work` returns in a fork of this process.

    Raises RecordError: what `work` raised, `timed_out` after `seconds`, or `crashed` when its process died
    ATTEMPTS times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        pid, answer = _fork(work)
        message = _receive(answer, seconds)
        os.close(answer)
        if message is None:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if message is None:
            raise RecordError(Reason.TIMED_OUT, f"no end after {seconds:g} s", stage="score", attempts=attempt)
        if message:
            result: T
            result, error = pickle.loads(message)  # written by our own fork
            if error is not None:
                raise error
            return result
    cause = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
    raise RecordError(Reason.CRASHED, f"took its process down ({cause})", stage="score", attempts=ATTEMPTS)


def _fork(work: Callable[[], Any]) -> tuple[int, int]:
    answer, ours = os.pipe()
    with warnings.catch_warnings():
        # The child only computes and ends by os._exit: it takes no lock that another thread may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(answer)
        _run_and_exit(work, ours)
    os.close(ours)
    return pid, answer


def _run_and_exit(work: Callable[[], Any], ours: int) -> NoReturn:
    status = 1
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel then takes this process first
    try:
        try:
            outcome: tuple[Any, RecordError | None] = (work(), None)
        except RecordError as error:
            outcome = (None, error)
        except MemoryError as error:
            outcome = (None, RecordError(Reason.OUT_OF_MEMORY, str(error), stage="score"))
        except Exception as error:
            detail = traceback.format_exception_only(error)[-1].strip()
            outcome = (None, RecordError(Reason.SCORING_ERROR, detail, stage="score"))
        with os.fdopen(ours, "wb") as pipe:
            pickle.dump(outcome, pipe)
        status = 0
    finally:
        os._exit(status)


def _receive(answer: int, seconds: float) -> bytes | None:
    """All that the child writes until it ends; None when it does not within `seconds`."""
    give_up = time.monotonic() + seconds
    received: list[bytes] = []
    while (left := give_up - time.monotonic()) > 0:
        if not select.select([answer], [], [], left)[0]:
            break
        block = os.read(answer, 1 << 16)
        if not block:
            return b"".join(received)
        received.append(block)
    return None
