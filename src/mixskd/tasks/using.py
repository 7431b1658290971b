"""Scoring a trained detector or segmentation network, and using it on images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from mixskd.config import DataConfig, Experiment, MethodChoice, from_dict, read_yaml
from mixskd.data import worker_count
from mixskd.data.images import decode_image
from mixskd.deploy.exporting import check_free
from mixskd.deploy.exports.formats import resolve
from mixskd.deploy.exports.onnx_file import check_packages, run_by_onnxruntime, traced
from mixskd.deploy.exports.verification import TOLERANCE
from mixskd.errors import UserError
from mixskd.evaluation.scoring import evaluation_mode, on
from mixskd.files import replacing, write_text
from mixskd.optional import needed
from mixskd.precision import choose_device
from mixskd.tasks.annotated import AnnotatedBundle
from mixskd.tasks.detection.config import DetectorConfig
from mixskd.tasks.detection.evaluation import Detection, coco_results, in_file_pixels
from mixskd.tasks.detection.loading import Sample, Sizes, padded
from mixskd.tasks.detection.loading import augmentation as detection_augmentation
from mixskd.tasks.network_file import About, load_network
from mixskd.tasks.parts import detection_data, score_loader, segmentation_data, task_of
from mixskd.tasks.segmentation.evaluation import Segmentation
from mixskd.tasks.segmentation.loading import normalisation


@torch.inference_mode()
def evaluate(path: str | Path, data: str | None = None, *, split: str | None = None) -> dict[str, Any]:
    """The scores of the network at ``path`` with those of each class, on a split of ``data`` or of its run's data.

    ``split`` is ``test`` if not given, or ``val`` where there is no test. Raises UserError if the data have other
    classes, or no such split.
    """
    model, about = load_network(path)
    bundle = data_of(path, about, data)
    name = split or next(name for name in ("test", "val") if name in bundle.splits)
    if name not in bundle.splits:
        raise UserError(f"there is no split {name!r}; there are: {', '.join(bundle.splits)}")
    device = choose_device("auto")
    task = task_of(bundle, about.config)
    metrics = task.metrics().to(device)
    model.to(device)
    with evaluation_mode(model):
        for images, targets in score_loader(bundle, name, about.config, workers=worker_count(None)):
            metrics.update(task.predict(model, on(device, images)), on(device, targets))
    values = metrics.compute()
    scores: dict[str, Any] = {**task.scores(values), "split": name, "images": len(bundle.splits[name])}
    if isinstance(task, Detection):
        return {**scores, "per_class": task.per_class(values)}
    assert isinstance(task, Segmentation)
    details = task.details(values)
    return {**scores, "per_class": details["per_class"], "absent": details["absent"]}


def data_of(path: str | Path, about: About, data: str | None = None, **settings: Any) -> AnnotatedBundle:
    """The images of ``data``, or of the run at ``path``; ``settings`` override those with which it was trained.

    Raises UserError if there are none, or they have other classes than the network.
    """
    config_file = Path(path) / "config.yaml"
    if data is None and not config_file.is_file():
        raise UserError(f"{path} does not say which data it was trained on; name some with --data")
    source = data or from_dict(read_yaml(config_file)).data.source
    experiment = Experiment(about.backbone, None, MethodChoice(about.network), DataConfig(source=source))
    load: Any = detection_data if isinstance(about.config, DetectorConfig) else segmentation_data
    bundle: AnnotatedBundle = load(experiment, dataclasses.replace(about.config, **settings), about.mean, about.std)
    if bundle.classes != about.classes:
        raise UserError(f"{source} has other classes ({len(bundle.classes)}) than the network ({len(about.classes)})")
    return bundle


@torch.inference_mode()
def predict(
    path: str | Path, images: Sequence[str | Path], out: str | Path, *, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Draw boxes or masks on ``images`` and write them to the folder ``out``, with ``predictions.json`` beside them.

    The JSON is a list in COCO's results format, with ``file_name`` added: boxes with their scores, or a mask
    (uncompressed RLE) for each class that was found. An image's id is its file's name if that is a number, else its
    place in ``images`` from 1 on. Boxes of a score below ``threshold`` are written, but not drawn. Raises UserError
    naming a file that cannot be read.
    """
    model, about = load_network(path)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for place, file in enumerate(map(Path, images), start=1):
        image = decode_image(file)
        image_id = int(file.stem) if file.stem.isdigit() else place
        if isinstance(about.config, DetectorConfig):
            detection = detect(model, about, image)
            found = coco_results(detection, image_id, about.category_ids or range(1, 1 + len(about.classes)))
            drawn = draw_boxes(image, detection, about.classes, threshold)
        else:
            classes = segment(model, about, image)
            found = mask_results(classes, image_id)
            drawn = draw_classes(image, classes, len(about.classes))
            Image.fromarray(classes.numpy().astype(np.uint8)).save(folder / f"{file.stem}_mask.png")
        F.to_pil_image(drawn).save(folder / f"{file.stem}.png")
        entries += [{**entry, "file_name": file.name} for entry in found]
    write_text(folder / "predictions.json", json.dumps(entries) + "\n")
    return entries


def detect(model: nn.Module, about: About, image: Image.Image) -> dict[str, Tensor]:
    """``boxes`` in the pixels of ``image``, ``scores`` and ``labels``, the best first."""
    config = about.config
    transform = detection_augmentation(Sizes(config.short, config.long), about.mean, about.std, train=False)
    one = transform(image)
    batch, sizes = padded([Sample(one.as_subclass(Tensor), torch.zeros(0, 4), torch.zeros(0), 0)])
    return in_file_pixels(model(batch, sizes)[0], sizes[0], (image.height, image.width))


def segment(model: nn.Module, about: About, image: Image.Image) -> Tensor:
    """The class of each pixel of ``image``, ``H x W``."""
    transform = normalisation(about.mean, about.std, colours=about.config.colours)
    classes: Tensor = model(transform(F.to_image(image)).as_subclass(Tensor)[None]).argmax(1)[0]
    return classes


def draw_boxes(image: Image.Image, detection: dict[str, Tensor], classes: Sequence[str], threshold: float) -> Tensor:
    """``image`` as a uint8 tensor with the boxes whose score is at least ``threshold``."""
    shown = detection["scores"] >= threshold
    labels, scores = detection["labels"][shown].tolist(), detection["scores"][shown].tolist()
    texts = [f"{classes[label - 1]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_labelled(image, detection["boxes"][shown], labels, texts, len(classes))


def draw_labelled(
    image: Image.Image, boxes: Tensor, labels: Sequence[int], texts: Sequence[str] | None, classes: int
) -> Tensor:
    """``image`` as a uint8 tensor with ``boxes`` (``n x 4``) in the colours of their ``labels``, from 1 on."""
    picture = F.pil_to_tensor(image)
    if not len(boxes):
        return picture
    colours = [palette(classes)[label - 1] for label in labels]
    return draw_bounding_boxes(picture, boxes, None if texts is None else list(texts), colors=colours, width=2)


def draw_classes(image: Image.Image, classes: Tensor, count: int) -> Tensor:
    """``image`` as a uint8 tensor under the colours of its ``classes`` (``H x W``)."""
    masks = torch.stack([classes == k for k in range(count)])
    return draw_segmentation_masks(F.pil_to_tensor(image), masks, alpha=0.5, colors=palette(count))


def palette(count: int) -> list[tuple[int, int, int]]:
    """``count`` colours of evenly spread hues."""
    import colorsys

    hues = [((k * 0.618034) % 1, 0.85, 0.95) for k in range(count)]
    return [tuple(round(255 * x) for x in colorsys.hsv_to_rgb(*hue)) for hue in hues]  # type: ignore[misc]


def mask_results(classes: Tensor, image_id: int) -> list[dict[str, Any]]:
    """An entry of COCO's results format for each class in ``classes`` (``H x W``); category ids are class indices."""
    return [
        {"image_id": image_id, "category_id": int(k), "segmentation": run_lengths((classes == k).numpy()), "score": 1.0}
        for k in classes.unique()
    ]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """A boolean mask ``H x W`` as COCO's uncompressed RLE: run lengths by columns, the first one of False."""
    flat = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat, prepend=0)) if len(flat) else np.zeros(0, dtype=np.int64)
    counts = np.diff(np.concatenate([[0], ends, [len(flat)]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def export_onnx(
    path: str | Path, out: str | Path | None = None, *, size: int | None = None, overwrite: bool = False
) -> Path:
    """Write the segmentation network at ``path`` as ONNX, checked with onnxruntime; the file.

    It maps ``images`` ``B x 3 x size x size`` (normalised; ``method.crop`` pixels if not given) to ``logits``
    ``B x N x size x size``. Raises UserError for a detector, for missing or broken packages, for a file that
    is there unless ``overwrite`` is set, and if the copy gives other logits.
    """
    check_packages()
    model, about = load_network(path)
    if isinstance(about.config, DetectorConfig):
        raise UserError("a detector has no ONNX export; use it with mixskd detect predict")
    side = size or about.config.crop
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    target = resolve("onnx", out, folder)[1]
    check_free(Path(path), [target], overwrite=overwrite)
    graph = traced(model, images, {0: torch.export.Dim("batch")}, "logits")
    with replacing(target) as temporary:
        needed("onnx", "onnx").save(graph, temporary)
        with torch.inference_mode():
            expected, given = model(images), run_by_onnxruntime(temporary)(images)
        if not torch.allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE):
            difference = (given - expected).abs().max().item()
            raise UserError(f"the logits of the copy differ (by {difference:.2g}); nothing was written")
    return target
