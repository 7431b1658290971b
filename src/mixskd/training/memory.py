"""How the process keeps its memory between steps, and which errors say that there is too little of it."""

from __future__ import annotations

import ctypes
import re
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's <malloc.h>


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks instead of returning them to the system; elsewhere nothing happens.

    A step frees the same large maps again and again. By default each is mapped anew, so that every step pays a page
    fault for each 4 KiB of them.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


# What torch's allocators, CUDA, its libraries and NCCL say, each in an error of its own or in a plain RuntimeError.
NO_MEMORY = re.compile(
    r"out of memory|not enough memory: you tried|can't allocate memory|std::bad_alloc"
    r"|ALLOC(ATION)?_FAILED|Failed to CUDA (calloc|malloc|host alloc)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the device or of the machine is too small."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
