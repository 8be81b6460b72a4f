"""Setting of glibc's memory allocator for processes that train. No torch."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # parameters of mallopt, see malloc.h
_LARGEST = 2**31 - 1  # bytes; mallopt takes a C int


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory in this process and its later forks, and return whether the C library can.

    By default, glibc maps large blocks one by one and unmaps them when they are freed. The activations of a large
    network are then mapped again, and zeroed by the kernel, in each training step. The values that are computed do
    not change; the process keeps its peak memory to its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))
