"""Join the processes that ``torchrun`` started, exchange values between them, and count restarts."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from mixskd.errors import UserError
from mixskd.errors.text import shown
from mixskd.runtime.precision import why_not_use


@dataclass(frozen=True)
class World:
    """Process ``rank`` of ``size``, from 0; ``control`` is the group for values on the CPU."""

    rank: int = 0
    size: int = 1
    control: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, items: int) -> slice:
        """This process's equal share of ``items`` in order."""
        each = items // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def same(self, value: Any) -> Any:
        """Rank 0's ``value`` (anything that pickles), on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def highest(self, number: int) -> int:
        """The largest ``number`` of all processes, without a synchronisation of the devices."""
        if self.size == 1:
            return number
        box = torch.tensor([number])
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.control)
        return int(box.item())

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` (anything that pickles) of every process, in order; tensors come on the CPU."""
        # A tensor on a GPU would be unpickled on that same GPU by every process.
        value = pytree.tree_map_only(Tensor, lambda x: x.detach().cpu(), value)
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` by those of rank 0."""
        if self.size > 1:
            for x in tensors:
                dist.broadcast(x, src=0)

    def total(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over all processes."""
        if self.size > 1:
            dist.all_reduce(x)
        return x


@contextmanager
def join(device: str) -> Iterator[World]:
    """Join the processes that ``torchrun`` started (``RANK``, ``WORLD_SIZE``), if it did; leave them at the end.

    A UserError of a process other than the first is marked with its rank, unless the first one fails for the same
    reason. Raises UserError where there are more processes than GPUs, or where the GPUs of some do not work.
    """
    size = _variable("WORLD_SIZE", 1, lowest=1)
    if size == 1:
        yield World()
        return
    _variable("RANK")
    _variable("LOCAL_RANK", 0)
    gpu = _uses_gpus(device)
    # After a restart the agent's store still holds the addresses of the processes that died: keep the attempts apart.
    store, rank, size = next(iter(dist.rendezvous("env://")))
    store = dist.PrefixStore(f"attempt{restarts()}", store)
    if not _alike(store, rank, size, gpu):
        raise UserError("the GPUs of some processes work and those of others do not; use --run.device cpu")
    dist.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=size)
    failed = True
    try:
        yield World(dist.get_rank(), size, dist.new_group(backend="gloo"))
        failed = False
    except UserError as error:
        if rank == 0:
            store.set(FAILURE, str(error))
        elif not _first_fails_with(store, str(error)):
            error.rank = rank
        raise
    finally:
        # NCCL's end waits for all processes, and those without an error may wait for this one's next message.
        if not (gpu and failed):
            dist.destroy_process_group()


def _variable(name: str, default: int | None = None, lowest: int = 0) -> int:
    """A number that ``torchrun`` puts into the environment. Raises UserError if it is missing or not such a number."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal() or len(text) > 9 or int(text) < lowest:
        raise UserError(
            f"the environment has {name}={shown(text)}, which must be a whole number from {lowest}; "
            "start several processes with torchrun, or unset WORLD_SIZE"
        )
    return int(text)


def _uses_gpus(device: str) -> bool:
    """Whether the run uses GPUs, as :func:`choose_device` decides; this process's own is then its current device."""
    if device.startswith("cpu") or not torch.cuda.is_available():
        return False
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    torch.cuda.set_device(local % gpus)
    if why_not_use(torch.device("cuda")) is not None:
        return False
    if local >= gpus:
        error = UserError(f"each process needs its own GPU, and this machine has {gpus}; start {gpus} per host")
        error.rank = int(os.environ["RANK"]) if local == gpus else None  # one of them says it
        raise error
    return True


def _alike(store: dist.Store, rank: int, size: int, answer: bool) -> bool:
    """Whether all processes have the same ``answer``; those with another backend would wait for each other."""
    store.set(f"answer {rank}", str(answer))
    return len({store.get(f"answer {other}") for other in range(size)}) == 1


FAILURE = "the first process's error"


def _first_fails_with(store: dist.Store, line: str) -> bool:
    """Whether the first process fails with the same ``line``; it is given two seconds to do so."""
    try:
        store.wait([FAILURE], timedelta(seconds=2))
    except dist.DistError:
        return False
    return store.get(FAILURE).decode() == line


def gather_batch(x: Tensor) -> Tensor:
    """``x`` (``B x ...``) of all processes, concatenated, without gradient; ``x`` itself for a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def usable_cores() -> int:
    """The cores that this process may use; all of the machine if the system does not report them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restarts() -> int:
    """How often ``torchrun --max-restarts`` has started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def may_restart() -> bool:
    """Whether ``torchrun --max-restarts`` would still start these processes again after a failure."""
    return restarts() < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
