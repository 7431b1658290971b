"""Worker processes that persist between epochs, and their errors in one line."""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mixskd.errors import UserError


def lasting_loader(
    owner: object,
    images: Dataset[Any],
    batches: Iterable[list[Any]],
    device: torch.device,
    workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader of ``batches`` for ``device``. Its workers use one thread each, and end when ``owner`` is deleted."""
    loader: DataLoader[Any] = DataLoader(
        images, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda",
        persistent_workers=workers > 0, worker_init_fn=_one_thread,
    )  # fmt: skip
    # This keeps the loader alive as long as its owner. Within a reference cycle Python may close the loader's pipes
    # before the loader can end its workers, and then waits five seconds for them.
    weakref.finalize(owner, lambda _loader: None, loader)
    return loader


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Re-raise a UserError of a worker without that process's traceback. The end of a worker is a RuntimeError."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).splitlines()[-1].split("UserError: ", 1)[-1]) from None
    except (ConnectionError, EOFError) as error:
        time.sleep(1)  # the pipe breaks a moment before torch notices the end of the process, and raises here
        raise RuntimeError("a DataLoader worker exited unexpectedly") from error


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
