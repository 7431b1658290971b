"""The memory of the process: its peak, and freed memory that it keeps between steps."""

import ctypes
import resource
import sys

import torch

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


def peak_memory(device: torch.device) -> int:
    """The largest memory so far in bytes: of the tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
