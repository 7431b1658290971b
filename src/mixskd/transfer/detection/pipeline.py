"""How images with boxes become batches, scores, predictions and drawings."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from mixskd.config.data import DataConfig
from mixskd.runtime.distributed import World
from mixskd.transfer.detection import loading
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.data import DetectionSet
from mixskd.transfer.detection.evaluation import Detection, check_installed, coco_results, in_file_pixels
from mixskd.transfer.detection.sources import load_detection
from mixskd.transfer.drawing import draw_boxes


class DetectionPipeline:
    """For networks of ``config`` whose images are normalised by ``mean`` and ``std``."""

    endings = (".png",)

    def __init__(self, config: DetectorConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config, self.mean, self.std = config, mean, std
        self.image_size = max(config.short)
        self.to_input = loading.augmentation(config.short, config.long, mean, std, train=False)

    def load(self, source: str, data: DataConfig) -> dict[str, DetectionSet]:
        """Every split of the data at ``source``. Raises UserError for data or packages that cannot be used."""
        check_installed()
        config = self.config
        splits = load_detection(
            source, skip_annotations=config.skip_bad_annotations, skip_images=data.skip_bad_images,
            verify=data.verify if config.check else "off", max_pixels=data.max_pixels,
        )  # fmt: skip
        if not config.empty_images:
            splits["train"].check(f"the train split of {source}")
            splits["train"] = splits["train"].without_empty()
        return splits

    def training(self, split: DetectionSet, *, flip: bool) -> tuple[Dataset[Any], Callable[[Any], Any]]:
        """The augmented images of ``split``, and the function that makes a batch of them."""
        transform = loading.augmentation(self.config.short, self.config.long, self.mean, self.std, flip=flip)
        return loading.DetectionImages(split, transform), loading.train_batch

    def scoring(self, split: DetectionSet) -> tuple[Dataset[Any], Callable[[Any], Any]]:
        """The images of ``split`` as they are scored, and the function that makes a batch of them."""
        return loading.DetectionImages(split, self.to_input), partial(loading.score_batch, split)

    def task(self, split: DetectionSet, world: World | None = None) -> Detection:
        """The task that scores the images of ``split`` and of the other splits."""
        return Detection(split.classes, world)

    def find(self, model: nn.Module, images: Sequence[Image.Image]) -> list[dict[str, Tensor]]:
        """``boxes`` in the pixels of each image, ``scores`` and ``labels``, the best first, on the CPU."""
        nothing = torch.zeros(0, 4), torch.zeros(0), 0
        batch, sizes = loading.padded(
            [loading.Sample(self.to_input(image).as_subclass(Tensor), *nothing) for image in images]
        )
        found = model(batch.to(next(model.parameters()).device), sizes)
        return [
            {key: value.cpu() for key, value in in_file_pixels(one, size, (image.height, image.width)).items()}
            for one, size, image in zip(found, sizes, images, strict=True)
        ]

    def entries(self, found: dict[str, Tensor], image_id: int, about: Any) -> list[dict[str, Any]]:
        """``found`` on one image in COCO's results format."""
        return coco_results(found, image_id, about.category_ids or range(1, 1 + len(about.classes)))

    def draw(
        self, image: Image.Image, found: dict[str, Tensor], classes: Sequence[str], threshold: float
    ) -> Image.Image:
        """``image`` with the boxes whose score is at least ``threshold``."""
        shown = found["scores"] >= threshold
        labels, scores = found["labels"][shown].tolist(), found["scores"][shown].tolist()
        texts = [f"{classes[label - 1]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        return draw_boxes(image, found["boxes"][shown], labels, texts, len(classes))

    def draw_truth(self, image: Image.Image, split: DetectionSet, index: int) -> Image.Image:
        """``image``, which is at ``index`` of ``split``, with its annotated boxes, crowds included."""
        one = split.images[index]
        labels = one.labels.tolist()
        texts = [split.classes[label - 1] for label in labels]
        return draw_boxes(image, one.boxes, labels, texts, len(split.classes))

    def save_found(self, found: dict[str, Tensor], classes: Sequence[str], stem: Path) -> None:
        """Nothing: boxes have no file of their own."""
