"""Batches of image files without labels, in order; each batch says which of its files cannot be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from mixskd.data.device_loader import Normalise
from mixskd.data.images import MAX_PIXELS, decode_image
from mixskd.data.preprocess import Preprocess
from mixskd.data.worker_loader import WorkerBatches
from mixskd.errors import UserError

FEW = 16  # images that are decoded sooner than worker processes have started


class Files(Dataset[dict[str, Tensor]]):
    """The files by their paths, cropped as in evaluation: uint8 ``images``, black if ``readable`` is False."""

    def __init__(self, preprocess: Preprocess, max_pixels: int = MAX_PIXELS) -> None:
        self.size, self.crop, self.enough = preprocess.image_size, preprocess.crop(), preprocess.enough
        self.max_pixels = max_pixels

    def __getitem__(self, path: str) -> dict[str, Tensor]:
        try:
            image = pil_to_tensor(self.crop(decode_image(path, None, self.enough, self.max_pixels)))
        except UserError:  # the caller reports the reason
            image = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
            return {"images": image, "readable": torch.tensor(False)}
        return {"images": image, "readable": torch.tensor(True)}


class FileLoader:
    """Batches of ``files``: their paths, images ``B x 3 x H x W`` (fp32, normalised, on ``device``), and whether each
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
