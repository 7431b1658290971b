"""Writing files so that a reader, or a run that died meanwhile, never sees half of one; reading those of others."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixskd.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; on success it is synced to disk and renamed over ``path``.

    On any failure ``path`` stays as it was and the temporary file is removed. Raises UserError if the disk is full, or
    nothing can be written there.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk for {path}; free some and --resume: nothing was lost") from None
        raise
    except RuntimeError as error:  # torch's own writer reports a failed write so
        if any(sign in str(error) for sign in ("PytorchStreamWriter", "inline_container", "write")):
            raise UserError(
                f"cannot write {path} (is the disk full?); free space and --resume: nothing was lost"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises UserError if ``replacing(path)`` would find that nothing can be written there; makes its folder."""
    _temporary(path).unlink()


def _temporary(path: Path) -> Path:
    """A new, empty file beside ``path``."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give a file's name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write {path}: {reason}; choose another place, or see to the folder's rights") from None
    return temporary


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


def load_tensors(path: Path, device: Any = "cpu") -> Any:
    """The tensors and plain values that ``torch.save`` wrote to ``path``. Raises ValueError for anything else."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how a foreign file was pickled, before it is refused
            return torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:  # of the device: the file is whole, and must not be called damaged
        raise
    except Exception as error:  # damaged bytes end the unpickler in as many ways as there are bytes
        raise ValueError(f"{path} cannot be read") from error


def slug(text: str) -> str:
    """``text`` as a part of a file's name: what is neither letter, digit nor ``.+=`` becomes ``_``."""
    return re.sub(r"[^\w.+=]+", "_", text).strip("_")
