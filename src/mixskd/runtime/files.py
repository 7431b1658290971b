"""Write files atomically, lock them, and read tensors from untrusted files."""

import errno
import fcntl
import os
import re
import socket
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixskd.errors import UserError
from mixskd.errors.faults import NO_SPACE

DAY = 24 * 3600
# A write that the disk, its limits or its cable refuse; anything else is the caller's.
FAILED_WRITES = (errno.EIO, errno.EFBIG, errno.EROFS, errno.ENOENT, errno.ESTALE, errno.EACCES, errno.EPERM)
_HOST = re.sub(r"\W", "_", socket.gethostname())[:40]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to. On success it is synced to disk and renamed to ``path``.

    On any failure ``path`` stays as it was, and the temporary file is removed. Raises UserError if the disk is full, if
    nothing can be written there, or if ``path`` is a device or a pipe.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(
                f"no space left on the disk for {path}; free some space and use --resume; nothing was lost"
            ) from None
        if error.errno in FAILED_WRITES and error.filename in (None, str(temporary), str(path), temporary, path):
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"cannot write {path}: {reason}; correct that and use --resume; nothing was lost") from None
        raise
    except Exception as error:
        if _is_failed_write(error):
            raise UserError(
                f"cannot write {path} (is the disk full?); free some space and use --resume; nothing was lost"
            ) from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_failed_write(error: Exception) -> bool:
    """Whether this is how torch's or safetensors' own writer reports a failed write."""
    if isinstance(error, RuntimeError):
        return any(sign in str(error) for sign in ("PytorchStreamWriter", "inline_container", "write"))
    return type(error).__name__ == "SafetensorError"


def check_writable(path: Path) -> None:
    """Raises UserError if ``replacing(path)`` would find that nothing can be written there; makes its folder."""
    _temporary(path).unlink()


def _temporary(path: Path) -> Path:
    """A new, empty file beside ``path``; those of processes that were killed are removed."""
    try:
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give a file's name")
        temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
        if path.exists() and not path.is_file():  # a rename would put a file in its place
            raise UserError(f"cannot write {path}: it is a device or a pipe; give a file's name")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        temporary.touch()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write {path}: {reason}; choose another place, or change its permissions") from None
    return temporary


def _remove_left_over(path: Path) -> None:
    """Remove the temporary files of ``path`` whose process is gone, or that are older than a day."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(?:(.+)-)?(\d+)\.tmp")
    for entry in os.scandir(path.parent):
        match = pattern.fullmatch(entry.name)
        if match is None:
            continue
        with suppress(OSError):
            here = match[1] in (_HOST, None)
            if (here and not _is_alive(int(match[2]))) or time.time() - entry.stat().st_mtime > DAY:
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Whether ``path`` is locked for this process alone, or ``shared`` with others that ask so; False if another holds
    it and ``wait`` is not set. The lock ends with the context, or with the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def check_readable(path: Path, missing: str) -> None:
    """Raises UserError if there is no file at ``path``, with the text ``missing``, or if this user may not read it."""
    if not path.is_file():
        raise UserError(missing)
    if not os.access(path, os.R_OK):  # its readers would call it missing or damaged
        raise UserError(f"no permission to read {path}")


def load_tensors(path: Path) -> Any:
    """The tensors and plain values that ``torch.save`` wrote to ``path``. Raises ValueError for anything else."""
    import torch

    try:
        if zipfile.is_zipfile(path):  # torch.save only stores; compressed members could grow without bound
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("it is compressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how a foreign file was pickled, before it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except torch.OutOfMemoryError:  # of the device: the file is whole, and must not be called damaged
        raise
    except Exception as error:  # damaged bytes end the unpickler in as many ways as there are bytes
        raise ValueError(f"{path} cannot be read") from error


def in_user_cache(name: str, variable: str) -> Path:
    """The path that the environment's ``variable`` names, or else ``name`` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return Path(os.environ.get(variable) or cache / "mixskd" / name)


def slug(text: str) -> str:
    """``text`` as a part of a file's name: what is neither letter, digit nor ``.+=`` becomes ``_``."""
    return re.sub(r"[^\w.+=]+", "_", text).strip("_")
