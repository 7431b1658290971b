"""Tell expected errors from bugs, and print one line for either; a bug's traceback goes to a file."""

import errno
import os
import re
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixskd.errors.terminal import show
from mixskd.errors.text import first_line

FAULT = 70  # EX_SOFTWARE of sysexits.h
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Messages of torch's allocators, CUDA, its libraries and NCCL; some have their own error class, some a RuntimeError.
NO_MEMORY = re.compile(
    r"out of memory|not enough memory: you tried|can't allocate memory|std::bad_alloc"
    r"|could not create a (primitive|memory object)|ALLOC(ATION)?_FAILED|Failed to CUDA (calloc|malloc|host alloc)",
    re.IGNORECASE,
)
# Messages of gloo, NCCL and torch's store after one of several processes has ended.
LOST_PROCESS = re.compile(
    r"(closed|reset) by (remote )?peer|Broken pipe|pair closure|remote process exit|did the remote server shutdown",
    re.IGNORECASE,
)
# Messages of torch about the processes that load images, and about the memory through which they send them.
LOST_WORKER = re.compile(
    r"DataLoader worker .*(killed by signal|exited unexpectedly)|unable to (allocate|open) shared memory|</?torch_\d+",
    re.DOTALL,
)
SMALL_SHARED_MEMORY = (
    "the memory or /dev/shm is too small: use fewer workers (--data.workers 1), or give a container more "
    "(--shm-size 8g); the run continues with --resume"
)
MANY_FILES = "too many files are open; allow more (ulimit -n 4096), or use fewer workers (--data.workers 1)"
NO_NETWORK = {
    "URLError", "HTTPError", "gaierror", "ConnectError", "ConnectTimeout", "MaxRetryError", "SSLError",
    "ConnectionError", "ConnectionRefusedError", "ConnectionResetError", "LocalEntryNotFoundError",
}  # fmt: skip


def foreseen(error: BaseException) -> str | None:
    """The message for an ``error`` that the machine or its user can cause: no space, no memory, no network, another
    process that ended, a missing package, a file name that is not possible. None if it is a bug of mixskd.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & NO_NETWORK:
        return f"no answer from the network ({first_line(error)}); get the files in another way and give their path"
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, UnicodeEncodeError):
        return "a name has characters that this system cannot write; rename it, or set PYTHONUTF8=1"
    if is_out_of_memory(error):
        return "there is not enough memory; take a smaller --batch-size, image size or network"
    if isinstance(error, RuntimeError) and LOST_PROCESS.search(str(error)):
        return "another process of this run ended, and its own message says why; the run continues with --resume"
    if isinstance(error, RuntimeError) and os.strerror(errno.EMFILE) in str(error):
        return MANY_FILES
    if isinstance(error, RuntimeError) and LOST_WORKER.search(str(error)):
        return f"a process that loads images was stopped; often {SMALL_SHARED_MEMORY}"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("mixskd"):
        return f"the package {error.name} is missing; install it with pip"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the device or of the machine is too small."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


def _of_the_system(error: OSError) -> str | None:
    where = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    if isinstance(error, PermissionError):
        return f"no permission to use {where.strip() or error}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return MANY_FILES
    if error.errno in NO_SPACE and not where and _shared_memory_is_full():
        return SMALL_SHARED_MEMORY
    if error.errno in NO_SPACE:
        full = f"no space left on the disk{f' for{where}' if where else ''}"
        return f"{full}; free some space, then continue with --resume"
    if error.errno is None or error.strerror is None:
        return None
    return f"cannot use{where or ' a file'}: {error.strerror.lower()}"


def _shared_memory_is_full() -> bool:
    """Whether /dev/shm, where processes that load images keep their locks and batches, has no 64 KiB left."""
    try:
        free = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return False
    return free.f_blocks > 0 and free.f_bavail * free.f_frsize < 2**16


def say(line: str, rank: int | None = None) -> None:
    """Print ``line`` as one line on stderr, with the ``rank`` of the process that failed."""
    where = "" if rank is None else f" in process {rank}"
    show(f"mixskd: error{where}: {' '.join(line.split())}", error=True)


def show_unraisable(found: Any) -> None:
    """A ``sys.unraisablehook`` without the complaint of a loader of torch that is removed before it was complete.

    The error that stopped the loader is shown by itself.
    """
    if "DataLoaderIter.__del__" not in repr(found.object):
        sys.__unraisablehook__(found)


def show_traceback(error: BaseException) -> None:
    """The traceback of ``error`` on stderr; what would act on a terminal is spelt out."""
    show(*"".join(traceback.format_exception(error)).splitlines(), error=True)


def report_fault(error: BaseException, *, debug: bool, rank: int | None = None) -> int:
    """Print one line that ``error`` is a bug of mixskd and where its traceback is; return the exit code.

    With ``debug`` the traceback is shown before the line. ``rank`` is that of :func:`say`.
    """
    text = "".join(traceback.format_exception(error))
    written = "shown above"
    if debug:
        show_traceback(error)
    elif (place := _write(text)) is not None:
        written = f"in {place}"
    else:
        written = "not saved, because no folder could be written to; --debug shows it"
    say(
        f"this is a bug of mixskd, not your mistake ({type(error).__name__}: {first_line(error)}); "
        f"its full traceback is {written}; please report it; a run that was stopped by it continues with --resume",
        rank,
    )
    return FAULT


def _write(text: str) -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mixskd" / "faults"
    for folder in (cache, Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"mixskd-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
            with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
    return None
