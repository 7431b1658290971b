"""Self-knowledge distillation for image classifiers: MixSKD (ECCV 2022) and its peers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mixskd.runtime.renamed import install
from mixskd.runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from mixskd.api import (
        average,
        benchmark,
        calibrate,
        compare,
        evaluate,
        export,
        find_lr,
        load,
        predict,
        probe,
        push,
        report,
        run_suites,
        save_model,
        show_data,
        train,
        tune,
    )
    from mixskd.backbones import StagedBackbone, build_backbone, wrap
    from mixskd.errors import UserError
    from mixskd.methods.base import Method
    from mixskd.training.listeners import Listener

install()

# Loaded on first use, so that the command line's help does not wait for torch.
_HOMES = {  # of what is not in mixskd.api
    "Listener": "mixskd.training.listeners",
    "StagedBackbone": "mixskd.backbones",
    "build_backbone": "mixskd.backbones",
    "wrap": "mixskd.backbones",
    "UserError": "mixskd.errors",
    "Method": "mixskd.methods",
}

__all__ = [
    "Listener", "Method", "StagedBackbone", "UserError", "average", "benchmark", "build_backbone", "calibrate",
    "compare", "evaluate", "export", "find_lr", "load", "predict", "probe", "push", "report", "run_suites",
    "save_model", "show_data", "train", "tune", "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "mixskd.api")), name)
    if name[:1].isupper():  # every method, by its class's name
        from mixskd.methods import METHODS

        if (found := METHODS.class_called(name)) is not None:
            return found
    raise AttributeError(f"module 'mixskd' has no attribute {name!r}")
