"""What a process that reads and scores without end does with memory."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # as in glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets this process hold on to the memory of signals and tensors that are gone.

    Left to itself, glibc gives it back to the system and takes it again, page after page, for each record that is read
    and each of torch's steps: a tenth of the time of torch, a fifth of that of reading a record of 400 Hz from HDF5.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that it takes
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_ARENA_MAX, 1)  # what the thread that reads has freed is used again, too
