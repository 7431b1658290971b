from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.transfer.detection import evaluation
from mixskd.transfer.detection.coco import load_coco
from mixskd.transfer.detection.evaluation import Detection, coco_results, in_file_pixels
from mixskd.transfer.detection.loading import truth
from mixskd.transfer.source_files import BadItems

SIDE = 320


def random_split(root: Path, images: int = 12) -> Path:
    """Boxes of all three sizes with crowds and empty images; the files are empty, as nobody opens them."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, object]] = []
    (root / "val").mkdir()
    for image in range(1, images + 1):
        (root / "val" / f"{image}.png").touch()
        for _ in range(0 if image % 5 == 0 else int(rng.integers(1, 7))):
            w, h = rng.integers(8, 200, 2)
            x, y = int(rng.integers(0, SIDE - w)), int(rng.integers(0, SIDE - h))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(rng.choice([2, 5, 11])),
                 "bbox": [x, y, int(w), int(h)], "area": float(w * h * rng.uniform(0.02, 1)),
                 "iscrowd": int(rng.random() < 0.1)}
            )  # fmt: skip
    values = {
        "info": {},
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"c{i}"} for i in (2, 5, 11, 12)],  # nothing is a c12
        "annotations": annotations,
    }
    (root / "val.json").write_text(json.dumps(values))
    return root


def test_scores_are_those_of_pycocotools(tmp_path: Path) -> None:
    root = random_split(tmp_path)
    split = load_coco(root / "val.json", root / "val", BadItems())
    task, entries = Detection(split.classes), []
    metrics = task.metrics()
    rng = torch.Generator().manual_seed(1)
    for image in split.images:
        noisy = image.boxes + 14 * torch.randn(image.boxes.shape, generator=rng)
        boxes = torch.cat([noisy, 100 + 60 * torch.rand(3, 4, generator=rng)])
        boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 2)], 1).round()
        labels = torch.cat([image.labels, torch.randint(1, 4, (3,), generator=rng)])
        confidence = torch.rand(len(boxes), generator=rng).mul(1000).round() / 1000
        detection = {"boxes": boxes, "labels": labels, "scores": confidence}
        metrics.update([detection], [truth(image)])
        entries += coco_results(detection, image.id, split.category_ids)
    values = metrics.compute()
    ours, per_class = task.scores(values), task.details(values)["per_class"]
    annotations = COCO(str(root / "val.json"))
    reference = COCOeval(annotations, annotations.loadRes(entries), "bbox")
    reference.evaluate(), reference.accumulate(), reference.summarize()
    assert [ours[name] for name in Detection.names] == pytest.approx((100 * reference.stats).tolist(), abs=1e-4)
    assert 5 < ours["ap"] < 95
    precision = reference.eval["precision"][:, :, :3, 0, 2]
    assert [per_class[f"c{i}"] for i in (2, 5, 11)] == pytest.approx((100 * precision.mean((0, 1))).tolist(), abs=1e-4)
    assert per_class["c12"] is None


def test_no_detection_scores_zero_and_sizes_without_objects_have_no_score(tmp_path: Path) -> None:
    root = random_split(tmp_path)
    values = json.loads((root / "val.json").read_text())
    for item in values["annotations"]:
        item["area"] = 100.0
    (root / "val.json").write_text(json.dumps(values))
    split = load_coco(root / "val.json", root / "val", BadItems())
    task = Detection(split.classes)
    metrics = task.metrics()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)}
    metrics.update([nothing] * len(split), [truth(image) for image in split.images])
    expected = ("ap", "ap50", "ap75", "ap_small", "ar1", "ar10", "ar100", "ar_small")
    assert task.scores(metrics.compute()) == dict.fromkeys(expected, 0)


def test_metric_is_the_same_after_it_is_computed(tmp_path: Path) -> None:
    root = random_split(tmp_path)
    split = load_coco(root / "val.json", root / "val", BadItems())
    metrics = Detection(split.classes, World(0, 1)).metrics()
    for image in split.images:
        found = {"boxes": image.boxes, "labels": image.labels, "scores": torch.ones(len(image.labels))}
        metrics.update([found], [truth(image)])
    first = metrics.compute()["map"]
    metrics.update([found], [truth(image)])
    assert metrics.compute()["map"] == first == 1


def test_boxes_are_scaled_to_the_pixels_of_the_file() -> None:
    detection = in_file_pixels({"boxes": torch.tensor([[10.0, 10, 20, 30]])}, (160, 640), (SIDE, SIDE))
    assert detection["boxes"].tolist() == [[5, 20, 10, 60]]


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mixskd\[detection\]'"):
        Detection(("a",)).metrics()
