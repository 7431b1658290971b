"""How images with masks become batches, scores, predictions and drawings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from mixskd.config.data import DataConfig
from mixskd.runtime.distributed import World
from mixskd.transfer.drawing import coloured_mask, draw_classes
from mixskd.transfer.segmentation import loading
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.data import SegmentationSet
from mixskd.transfer.segmentation.evaluation import Segmentation, mask_results
from mixskd.transfer.segmentation.sources import load_segmentation


class SegmentationPipeline:
    """For networks of ``config`` whose images are normalised by ``mean`` and ``std``."""

    endings = (".png", "_mask.png")

    def __init__(self, config: DeepLabConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config, self.mean, self.std = config, mean, std
        self.image_size = config.crop
        self.to_input = loading.normalisation(mean, std, colours=config.colours)

    def load(self, source: str, data: DataConfig) -> dict[str, SegmentationSet]:
        """Every split of the data at ``source``. Raises UserError for data that cannot be used."""
        config = self.config
        return load_segmentation(
            source, config.kind, skip_annotations=config.skip_bad_annotations, skip_images=data.skip_bad_images,
            verify=data.verify if config.check else "off", max_pixels=data.max_pixels,
            stuff_classes=config.stuff_classes,
        )  # fmt: skip

    def training(self, split: SegmentationSet, *, flip: bool) -> tuple[Dataset[Any], Callable[[Any], Any]]:
        """The augmented images of ``split``, and the function that makes a batch of them."""
        config = self.config
        transform = loading.augmentation(
            config.crop, self.mean, self.std, config.scales, flip=flip, colours=config.colours
        )
        return loading.SegmentationImages(split, transform), loading.train_batch

    def scoring(self, split: SegmentationSet) -> tuple[Dataset[Any], Callable[[Any], Any]]:
        """The images of ``split`` as they are scored, and the function that makes a batch of them."""
        return loading.SegmentationImages(split, self.to_input), loading.score_batch

    def task(self, split: SegmentationSet, world: World | None = None) -> Segmentation:
        """The task that scores the images of ``split`` and of the other splits."""
        return Segmentation(split.classes, split.released_classes)

    def find(self, model: nn.Module, images: Sequence[Image.Image]) -> list[Tensor]:
        """The class of each pixel (``H x W``) of each image, on the CPU; the images have one size."""
        batch = torch.stack([self.to_input(F.to_image(image)).as_subclass(Tensor) for image in images])
        return list(model(batch.to(next(model.parameters()).device)).argmax(1).cpu())

    def entries(self, found: Tensor, image_id: int, about: Any) -> list[dict[str, Any]]:
        """``found`` on one image in COCO's results format."""
        return mask_results(found, image_id)

    def draw(self, image: Image.Image, found: Tensor, classes: Sequence[str], threshold: float) -> Image.Image:
        """``image`` under the colours of the classes that were found, with a legend."""
        return draw_classes(image, found, classes)

    def draw_truth(self, image: Image.Image, split: SegmentationSet, index: int) -> Image.Image:
        """``image``, which is at ``index`` of ``split``, under the colours of its annotated classes, with a legend."""
        return draw_classes(image, torch.from_numpy(np.array(split.read_mask(index))), split.classes)

    def save_found(self, found: Tensor, classes: Sequence[str], stem: Path) -> None:
        """Write ``found`` to ``STEM_mask.png``: one class index per pixel, with a palette of colours."""
        coloured_mask(found, classes).save(stem.with_name(f"{stem.name}_mask.png"))
