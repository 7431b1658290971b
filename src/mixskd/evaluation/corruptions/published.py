"""The published image files of corruptions: CIFAR-10-C and CIFAR-100-C, Tiny-ImageNet-C and ImageNet-C."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from mixskd.artifacts.model_file import Classifier
from mixskd.config import DataConfig
from mixskd.data import DataBundle, ImageSet, load_data, make_test_loader
from mixskd.errors import UserError
from mixskd.evaluation.base import Batches

SEVERITIES = 5


@dataclasses.dataclass(frozen=True)
class PublishedFiles:
    """The corrupted images in ``folder``, as ``model`` expects them.

    The folder holds ``NAME.npy`` (uint8 ``5N x H x W x 3``, severity after severity) and ``labels.npy`` (``N`` or
    ``5N`` labels), as CIFAR-C does, or ``NAME/SEVERITY/CLASS/`` with image files, as ImageNet-C does.
    """

    folder: Path
    model: Classifier
    device: torch.device
    batch_size: int

    def names(self) -> list[str]:
        """The corruptions in the folder. Raises UserError if there are none."""
        found = {path.stem for path in self.folder.glob("*.npy")} - {"labels"}
        found |= {path.parent.name for path in self.folder.glob("*/1") if path.is_dir()}
        if not found:
            raise UserError(
                f"{self.folder} holds no published corruptions; give a folder with NAME.npy and labels.npy, or with "
                "NAME/SEVERITY/CLASS/"
            )
        return sorted(found)

    def batches(self, name: str, severity: int, most: int, generator: torch.Generator) -> tuple[Batches, int]:
        """A random choice of ``most`` images (all if 0) of a corruption at a severity, and their number.

        Raises UserError for files that cannot be used, or whose classes are not those of the model.
        """
        images = self._arrays(name, severity) if (self.folder / f"{name}.npy").exists() else self._files(name, severity)
        if 0 < most < len(images):
            images = images.subset(torch.randperm(len(images), generator=generator)[:most].sort().values.numpy())
        data = DataBundle({"test": images}, self.model.classes, self.model.preprocess)
        return make_test_loader(data, self.device, split="test", batch_size=self.batch_size), len(images)

    def _arrays(self, name: str, severity: int) -> ImageSet:
        path = self.folder / f"{name}.npy"
        try:
            images, labels = np.load(path, mmap_mode="r"), np.load(self.folder / "labels.npy")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read the published corruption {path} with its labels.npy: {error}") from None
        number, rest = divmod(len(images) if images.ndim == 4 else 0, SEVERITIES)
        if not number or rest or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UserError(f"{path} must hold uint8 images of 5 severities, 5N x H x W x 3, not {images.shape}")
        if labels.shape not in ((number,), (len(images),)) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{self.folder / 'labels.npy'} must hold {number} or {len(images)} whole numbers")
        part, classes = slice((severity - 1) * number, severity * number), len(self.model.classes)
        own = (labels if len(labels) == number else labels[part]).astype(np.int64)
        if len(wrong := own[(own < 0) | (own >= classes)]):
            raise UserError(f"{self.folder} has a label {wrong[0]}, but the model has {classes} classes")
        return ImageSet(np.array(images[part]), own)

    def _files(self, name: str, severity: int) -> ImageSet:
        folder = self.folder / name / str(severity)
        if not folder.is_dir():
            raise UserError(f"there is neither {self.folder / name}.npy nor {folder}; leave out the corruption {name}")
        data = load_data(DataConfig(source=str(folder), image_size=self.model.image_size), verify=False, divided=False)
        if data.classes != self.model.classes:
            raise UserError(
                f"{folder} has other classes ({len(data.classes)}) than the model ({len(self.model.classes)})"
            )
        return data.train
