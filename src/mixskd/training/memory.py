"""Let the process keep freed memory between steps."""

import ctypes
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
