"""``.onnx`` of a segmentation network."""

from __future__ import annotations

from pathlib import Path

import torch

from mixskd.deploy.exporting import check_free
from mixskd.deploy.exports.formats import resolve
from mixskd.deploy.exports.onnx_file import check_packages, run_by_onnxruntime, traced
from mixskd.deploy.exports.verification import TOLERANCE
from mixskd.errors import UserError
from mixskd.runtime.files import replacing
from mixskd.runtime.packages import needed
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.network_file import load_network


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
