"""Self-knowledge distillation for image classifiers: MixSKD (ECCV 2022) and its peers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixskd.api import benchmark, train
    from mixskd.backbones import StagedBackbone, build_backbone
    from mixskd.comparison.run import compare
    from mixskd.deploy import evaluate, export, predict
    from mixskd.deploy import load_model as load
    from mixskd.errors import UserError
    from mixskd.methods import *  # noqa: F403
    from mixskd.methods import Method

__version__ = "0.1.0"

# Loaded on first use, so that the command line's help does not wait for torch.
_HOMES = {
    "benchmark": "mixskd.api",
    "train": "mixskd.api",
    "compare": "mixskd.comparison.run",
    "load": "mixskd.deploy.model_file:load_model",
    "evaluate": "mixskd.deploy",
    "predict": "mixskd.deploy",
    "export": "mixskd.deploy",
    "StagedBackbone": "mixskd.backbones",
    "build_backbone": "mixskd.backbones",
    "UserError": "mixskd.errors",
    "Method": "mixskd.methods",
}

__all__ = [
    "Method",
    "StagedBackbone",
    "UserError",
    "benchmark",
    "build_backbone",
    "compare",
    "evaluate",
    "export",
    "load",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)
    if name[:1].isupper():  # every method, by its class's name
        methods = importlib.import_module("mixskd.methods")
        for method in methods.METHODS.values():
            if method.__name__ == name:
                return method
    raise AttributeError(f"module 'mixskd' has no attribute {name!r}")
