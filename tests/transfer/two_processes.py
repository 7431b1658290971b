"""Processes of test_distributed: steps on this process's half of a batch, then a whole run, of both networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mixskd.backbones import BACKBONES
from mixskd.config import Experiment, OptimConfig
from mixskd.config.build import build_experiment
from mixskd.data.batch import Batch
from mixskd.runtime.distributed import World, join
from mixskd.training.engine import Engine
from mixskd.training.factory import build_parts
from mixskd.training.run_folder import RunFolder
from mixskd.training.step import build_step
from mixskd.training.trainer import Trainer
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.loading import DetectionImages
from mixskd.transfer.detection.loading import augmentation as detection_augmentation
from mixskd.transfer.detection.loading import train_batch as detection_batch
from mixskd.transfer.detection.model import CascadeRCNN
from mixskd.transfer.detection.sources import load_detection
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.loading import SegmentationImages, normalisation
from mixskd.transfer.segmentation.loading import train_batch as segmentation_batch
from mixskd.transfer.segmentation.model import SegmentationMethod
from mixskd.transfer.segmentation.sources import load_segmentation
from tests.transfer.detection.support import tiny_backbone

NORM = ((0.5,) * 3, (0.25,) * 3)
SMALL: dict[str, dict[str, Any]] = {
    "cascade_rcnn": {
        "channels": 8,
        "hidden": 16,
        "rois": 16,
        "proposals": 40,
        "short": (64,),
        "long": 64,
        "rpn_border": -1,
    },
    "deeplabv3": {"head": "torchvision", "crop": 32, "output_stride": 16},
}


def steps(name: str, data: Path, world: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state before and after three steps; norms use running statistics, and nothing is dropped at random."""
    torch.manual_seed(0)
    images: Dataset[Any]
    method: nn.Module
    if name == "cascade_rcnn":
        config = DetectorConfig(**SMALL[name])
        transform = detection_augmentation(config.short, config.long, *NORM, flip=False)
        images, collate = DetectionImages(load_detection(data)["train"], transform), detection_batch
        method = CascadeRCNN(tiny_backbone(), 2, config)
    else:
        images = SegmentationImages(load_segmentation(data)["train"], normalisation(*NORM))
        collate = segmentation_batch  # type: ignore[assignment]
        method = SegmentationMethod(tiny_backbone(), 3, DeepLabConfig(**SMALL[name]))
    whole = collate([images[(i, 0)] for i in (0, 3, 1, 2)])  # two objects in each half
    part = world.part(4)
    extra = {key: value[part] for key, value in whole.extra.items()}
    batch = Batch(whole.images[part], whole.labels[part], extra)
    step = build_step(method, OptimConfig(lr=0.05), torch.device("cpu"), Engine(), 1, world)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    for i in range(3):
        step(batch, 0.05, seed=i)
    return before, {key: value.clone() for key, value in method.state_dict().items()}


def experiment(name: str, data: Path, out: Path) -> Experiment:
    """A run of two epochs of one step, of four images in all."""
    BACKBONES["tiny"] = lambda classes: tiny_backbone()
    return build_experiment({
        "backbone": "tiny", "method": {"name": name, **SMALL[name]}, "data": {"source": str(data), "workers": 0},
        "optim": {"lr": 0.08, "schedule": "poly", "warmup_epochs": 0, "nesterov": False}, "out": str(out),
        "run": {"epochs": 2, "batch_size": 4, "progress": False, "precision": "fp32", "device": "cpu"},
    })  # fmt: skip


def main(root: Path) -> None:
    """Leave the states in a file whose name says how many processes there are, and the runs of two."""
    torch.set_num_threads(1)
    torch.randperm = lambda n, **_: torch.arange(n)  # type: ignore[assignment]  # how regions are sampled
    with join("cpu") as world:
        states = {name: steps(name, root / name, world) for name in SMALL}
        if world.first:
            torch.save(states, root / f"states{world.size}.pt")
        if world.size > 1:
            for name in SMALL:
                run = experiment(name, root / name, root / f"run_{name}")
                folder = RunFolder(Path(run.out))
                if world.first:
                    folder.begin(run)
                Trainer(build_parts(run, world), folder).run()
