"""Worker processes that persist between epochs, and their errors in one line."""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from mixskd.data.prefetch import ahead
from mixskd.errors import UserError


class WorkerBatches:
    """Collated batches of ``images`` for ``device``, from worker processes that are kept between epochs.

    Workers use one thread each, and end when this object is deleted.
    """

    def __init__(
        self, images: Dataset[Any], device: torch.device, workers: int, collate: Callable[[Any], Any] | None = None
    ) -> None:
        self.requests, self.device = Requests(), device
        self.loader: DataLoader[Any] = DataLoader(
            images, batch_sampler=self.requests, collate_fn=collate, num_workers=workers,
            pin_memory=device.type == "cuda", persistent_workers=workers > 0, worker_init_fn=_one_thread,
        )  # fmt: skip
        # This keeps the loader alive as long as its owner. Within a reference cycle Python may close the loader's pipes
        # before the loader can end its workers, and then waits five seconds for them.
        weakref.finalize(self, lambda _loader: None, self.loader)

    def load(self, items: Iterable[list[Any]]) -> Iterator[Any]:
        """The batch of each of ``items``, in order; only the next few are requested ahead.

        Dictionaries of tensors are on the device, other batches as they were collated.
        """
        self.requests.items = items
        with errors_in_one_line():
            yield from ahead(self.loader, self.device) if self.loader.collate_fn is default_collate else self.loader


class Requests:
    """The items of the present epoch, for a loader that is kept between epochs."""

    def __init__(self) -> None:
        self.items: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.items)


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
