"""A lock on a run folder, which lets only one process use the run."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixskd.errors import UserError

NAME = ".run.lock"
_held: set[Path] = set()  # the locks of this process, which the system would grant to it again


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock the run in ``folder``. A missing folder is made. If it stays empty, it is removed again, with the parents
    that were made for it.

    The lock ends with the process, even if the process is killed and its children live on. Raises UserError if another
    process holds it.
    """
    if _is_something_else(folder):  # RunFolder.check reports it
        yield
        return
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _acquire(folder.resolve() / NAME)
    except OSError as error:
        _remove_empty(new)
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write in {folder}: {reason}; choose another --out") from None
    try:
        yield
    finally:
        _release(folder.resolve() / NAME, held)
        _remove_empty(new)


def _is_something_else(path: Path) -> bool:
    """Whether ``path`` exists and is no folder. One system call, since another process may remove the folder."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # a folder that is not empty, and so all folders above it
        for folder in folders:
            folder.rmdir()


def _acquire(path: Path) -> int | None:
    """The file descriptor of the lock; None if the file system has no locks."""
    taken = UserError(
        f"another process is using the run in {path.parent}; wait until it ends, stop it, or choose another --out"
    )
    if path in _held:
        raise taken
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked workers would keep it
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise taken from None
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                _held.add(path)
                return descriptor
        os.close(descriptor)  # its former holder removed it meanwhile


def _release(path: Path, descriptor: int | None) -> None:
    _held.discard(path)
    if descriptor is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)
