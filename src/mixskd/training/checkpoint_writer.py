"""Write checkpoints while the training goes on: a copy of the state in host memory, written by one thread."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.training.checkpoint import save_checkpoint


class CheckpointWriter:
    """Writes the checkpoints of a run to ``path``, each at once or, with ``beside``, beside the training.

    Beside the training, a checkpoint costs a copy of the state in host memory, which the next ones reuse, and the time
    of that copy. The file appears a little later, whole or not at all. At most one checkpoint is being written, so a
    process that is killed then loses that one and continues from the one before it.

    An error of a write (a full disk) is raised by the next call of any method.
    """

    def __init__(self, path: Path, *, beside: bool) -> None:
        self.path, self.beside = path, beside
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    def held(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """``state`` as :meth:`write` needs it: a copy if it is written beside the steps that change it."""
        if not self.beside:
            return state
        self.wait()  # for what reads the buffers
        return {key: self._copied(value, (key,)) for key, value in state.items()}

    def write(self, state: Mapping[str, Any]) -> None:
        """Write ``state``, which does not change until :meth:`wait` returns."""
        self.wait()
        if self.beside:
            self._writing = self._thread.submit(save_checkpoint, self.path, state, keep=True)
        else:
            save_checkpoint(self.path, state, keep=True)

    def wait(self) -> None:
        """Return when the checkpoint is written. Raises UserError if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let the last write end; its error is not raised, because another one already ends the run."""
        self._thread.shutdown()

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != value.shape:
                buffer = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
                self._buffers[place] = buffer
            return buffer.copy_(value.detach())
        if isinstance(value, Mapping):
            return {key: self._copied(part, (*place, key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(part, (*place, number)) for number, part in enumerate(value))
        return value
