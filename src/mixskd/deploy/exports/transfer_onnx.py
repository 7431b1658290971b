"""``.onnx`` of detectors and segmentation networks."""

import json
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from mixskd.data.images import decode_image
from mixskd.deploy.exporting import check_replaceable
from mixskd.deploy.exports.description import KEY
from mixskd.deploy.exports.formats import resolve
from mixskd.deploy.exports.graph import quiet
from mixskd.deploy.exports.onnx_file import check_packages, run_by_onnxruntime, traced
from mixskd.deploy.exports.verification import TOLERANCE
from mixskd.errors import UserError
from mixskd.runtime.files import replacing
from mixskd.runtime.packages import needed
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.loading import PAD
from mixskd.transfer.evaluating import data_of
from mixskd.transfer.network_file import NetworkDescription, load_network

COMPARED = 4  # images of the run's data on which a detector and its copy are compared
DIFFERENT = 0.01  # largest share of detections that may differ: equal scores can be suppressed in another order


class OneImage(nn.Module):
    """A detector for one image: ``1 x 3 x H x W`` -> ``boxes`` ``d x 4``, ``labels`` ``d``, ``scores`` ``d``."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = images.shape[-2], images.shape[-1]
        padded = F.pad(images, (0, -width % PAD, 0, -height % PAD))
        found = self.detector(padded, [(height, width)])[0]
        return found["boxes"], found["labels"], found["scores"]


def export_onnx(
    path: str | Path, out: str | Path | None = None, *, size: int | None = None, overwrite: bool = False
) -> Path:
    """Write the network at ``path`` as ONNX, compared with the network by onnxruntime; return the file.

    A segmentation network maps ``images`` ``B x 3 x size x size`` (``method.crop`` pixels if None) to ``logits``
    ``B x N x size x size``. A detector maps ``images`` ``1 x 3 x H x W`` of any size to ``boxes`` (``d x 4``, corners
    in pixels of this input), ``labels`` (1 to N) and ``scores``. Images are normalised; the metadata have the classes,
    mean and std. Raises UserError for missing or broken packages, for a file that exists unless ``overwrite`` is set,
    and if the copy gives other results.
    """
    check_packages()
    model, about = load_network(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    target = resolve("onnx", out, folder)[1]
    check_replaceable(Path(path), [target], overwrite=overwrite)
    package = needed("onnx", "onnx")
    detector = isinstance(about.config, DetectorConfig)
    side = size or (32 * (max(about.config.short) // 32) if detector else about.config.crop)
    images = torch.randn(1 if detector else 2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with replacing(target) as temporary:
        if detector:
            single = OneImage(model).eval()
            trace_detector(single, images, temporary)
            graph = package.load(temporary)
        else:
            graph = traced(model, images, {0: torch.export.Dim("batch")}, "logits")
        package.helper.set_model_props(graph, {KEY: json.dumps(msgspec.structs.asdict(about))})
        package.save(graph, temporary)
        if detector:
            compare_detections(single, temporary, sample_images(path, about) or [images])
        else:
            with torch.inference_mode():
                expected, given = model(images), run_by_onnxruntime(temporary)(images)[0]
            if not torch.allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE):
                difference = (given - expected).abs().max().item()
                raise UserError(f"the logits of the copy differ (by {difference:.2g}); nothing was written")
    return target


def trace_detector(model: OneImage, images: Tensor, file: Path) -> None:
    """Write ``model`` to ``file`` by torch's tracing exporter, for which torchvision has its detection operators."""
    names = ["boxes", "labels", "scores"]
    with quiet():
        torch.onnx.export(
            model, (images,), file, dynamo=False, opset_version=17, input_names=["images"], output_names=names,
            dynamic_axes={"images": {2: "height", 3: "width"}, **{name: {0: "detections"} for name in names}},
        )  # fmt: skip


def sample_images(path: str | Path, about: NetworkDescription) -> list[Tensor]:
    """Some images of the run's scored split as a detector's input; empty if they cannot be read."""
    pipeline: Any = about.pipeline(check=False, skip_bad_annotations=True)
    try:
        bundle = data_of(path, about, pipeline)
        files = bundle.annotated[bundle.scored].files[:COMPARED]
        return [pipeline.to_input(decode_image(file)).as_subclass(Tensor)[None] for file in files]
    except UserError:
        return []


@torch.inference_mode()
def compare_detections(model: OneImage, file: Path, samples: list[Tensor]) -> None:
    """Raises UserError if the graph in ``file`` finds other boxes, labels or scores than ``model`` on ``samples``."""
    different, count, run = 0, 0, run_by_onnxruntime(file)
    for images in samples:
        boxes, labels, scores = model(images)
        other_boxes, other_labels, other_scores = run(images)
        same = (labels[:, None] == other_labels) & ((scores[:, None] - other_scores).abs() < TOLERANCE)
        same &= box_iou(boxes, other_boxes) > 0.99
        different += int((~same.any(1)).sum()) + int((~same.any(0)).sum())
        count += len(labels) + len(other_labels)
    if different > DIFFERENT * count:
        raise UserError(f"{different} of {count} detections of the copy and the network differ; nothing was written")
