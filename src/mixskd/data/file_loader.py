"""Batches of image files without labels, in order; each batch says which of its files cannot be read."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixskd.data.device_loader import Normalise
from mixskd.data.images import MAX_PIXELS, open_image
from mixskd.data.preprocess import Preprocess, image_tensor
from mixskd.data.workers import WorkerBatches
from mixskd.errors import UserError

FEW = 16  # images that are decoded sooner than worker processes have started


class Files(Dataset[dict[str, Tensor]]):
    """The files by their paths, cropped as in evaluation: ``images``, black if ``readable`` is False."""

    def __init__(self, preprocess: Preprocess, max_pixels: int = MAX_PIXELS) -> None:
        self.wanted, self.crop, self.max_pixels = preprocess, preprocess.crop(), max_pixels

    def __getitem__(self, path: str) -> dict[str, Tensor]:
        try:
            image = image_tensor(self.crop(open_image(path, self.wanted, None, self.max_pixels)))
        except UserError:  # the caller reports the reason
            size = self.wanted.image_size
            black = torch.from_numpy(np.zeros((self.wanted.channels, size, size), self.wanted.dtype))
            return {"images": black, "readable": torch.tensor(False)}
        return {"images": image, "readable": torch.tensor(True)}


class FileLoader:
    """Batches of ``files``: their paths, images ``B x C x H x W`` (fp32, normalised, on ``device``), and whether each
    can be read (``B`` bools).

    Only the next few batches of ``files`` are in memory. ``workers`` processes decode them. This process decodes them
    itself if ``workers`` is 0, or if ``few_alone`` is set and there are only a few files.
    """

    def __init__(
        self, files: Iterable[str], preprocess: Preprocess, device: torch.device, *, batch_size: int, workers: int,
        few_alone: bool = False, max_pixels: int = MAX_PIXELS,
    ) -> None:  # fmt: skip
        rest = iter(files)
        first = list(islice(rest, FEW))
        if few_alone and len(first) < FEW:
            workers = 0
        self.files, self.batch_size = chain(first, rest), batch_size
        self.batches = WorkerBatches(Files(preprocess, max_pixels), device, workers)
        self.normalise = Normalise(preprocess, device)
        self.waiting: deque[list[str]] = deque()

    def __iter__(self) -> Iterator[tuple[list[str], Tensor, list[bool]]]:
        for samples in self.batches.load(self._paths()):
            readable = samples["readable"].tolist()
            yield self.waiting.popleft(), self.normalise(samples["images"]), readable

    def _paths(self) -> Iterator[list[str]]:
        while batch := list(islice(self.files, self.batch_size)):
            self.waiting.append(batch)
            yield batch
