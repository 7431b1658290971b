"""Self-knowledge distillation for image classifiers: MixSKD (ECCV 2022) and its peers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixskd.api import train
    from mixskd.backbones import StagedBackbone, build_backbone
    from mixskd.comparison.comparing import compare
    from mixskd.deploy import evaluate, export, predict
    from mixskd.deploy import load_model as load
    from mixskd.errors import UserError
    from mixskd.methods import Baseline, DeepSupervision, Method, MixSKD, Mixup

__version__ = "0.1.0"

# Loaded on first use, so that the command line's help does not wait for torch.
_HOMES = {
    "train": "mixskd.api",
    "compare": "mixskd.comparison.comparing",
    "load": "mixskd.deploy.model_file:load_model",
    "evaluate": "mixskd.deploy",
    "predict": "mixskd.deploy",
    "export": "mixskd.deploy",
    "StagedBackbone": "mixskd.backbones",
    "build_backbone": "mixskd.backbones",
    "UserError": "mixskd.errors",
    "Baseline": "mixskd.methods",
    "DeepSupervision": "mixskd.methods",
    "Method": "mixskd.methods",
    "MixSKD": "mixskd.methods",
    "Mixup": "mixskd.methods",
}

__all__ = [
    "Baseline",
    "DeepSupervision",
    "Method",
    "MixSKD",
    "Mixup",
    "StagedBackbone",
    "UserError",
    "build_backbone",
    "compare",
    "evaluate",
    "export",
    "load",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mixskd' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)
