"""A ResNet's weights under the keys of MMDetection, mmsegmentation and Detectron2, whose own code then loads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.artifacts.model_file import Classifier
from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.resnet import LAYOUTS
from mixskd.errors import UserError

FRAMEWORKS = ("mmdetection", "mmsegmentation", "detectron2")


def mmlab_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of ``state`` (torchvision's keys) for the ``ResNet`` of MMDetection and mmsegmentation.

    Their keys are torchvision's, without the classifier.
    """
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def detectron2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of ``state`` (torchvision's keys) for Detectron2's ResNet.

    There the stem is ``stem.conv1``, ``layer1`` to ``layer4`` are ``res2`` to ``res5``, the norm of a convolution is
    its child ``norm``, and the shortcut is called ``shortcut``. It counts no batches.
    """
    found = {}
    for key, value in mmlab_state(state).items():
        if key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
        key = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", key)
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        found[key if key.startswith("res") else f"stem.{key}"] = value
    return found


def checkpoint(model: Classifier, framework: str) -> dict[str, Any]:
    """The content of the file for ``framework``: ``mmdetection``, ``mmsegmentation`` or ``detectron2``.

    ``mean`` and ``std`` are of images from 0 to 255, RGB, as these frameworks' settings take them. Raises UserError for
    a network that is no ResNet-18, 34, 50 or 101 of torchvision or timm.
    """
    if model.in_channels != 3:
        raise UserError(f"{framework} takes RGB images, and this network has {model.in_channels} channels")
    if model.name.removeprefix(PREFIX) not in LAYOUTS:
        raise UserError(
            f"{framework} has no {model.name}; this export is for {', '.join(LAYOUTS)}, whose stem is for large images"
        )
    state = {key: value.detach().cpu().contiguous() for key, value in model.export_state_dict().items()}
    about = {"mean": [255 * x for x in model.mean], "std": [255 * x for x in model.std], "backbone": model.name}
    if framework == "detectron2":
        # With this its loader matches the keys by their endings, in any of its models.
        return {"model": detectron2_state(state), "__author__": "mixskd", "matching_heuristics": True, "about": about}
    return {"state_dict": mmlab_state(state), "meta": about}


def write_checkpoint(model: Classifier, target: Path, framework: str) -> None:
    """Write :func:`checkpoint` to ``target``; ``weights_only`` loading reads it."""
    torch.save(checkpoint(model, framework), target)
