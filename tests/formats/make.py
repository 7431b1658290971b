"""Write a finished and an unfinished run of the installed mixskd, tiny when compressed, into RUN.tar.xz.

``python tests/formats/make.py run-N.tar.xz``: once for each new format of checkpoint, model file or run folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import mixskd
from mixskd.backbones import build_backbone
from mixskd.training.step import TrainStep

# Weights of few values that no step changes, so that the files compress to next to nothing.
SETTINGS: dict[str, Any] = {
    "data": "toy.npz", "backbone": "wrn_10_1", "method": "baseline", "weights": "start.safetensors",
    "optim": {"lr": 1e-30, "momentum": 0, "nesterov": False, "weight_decay": 0, "warmup_epochs": 0},
}  # fmt: skip
RUN = {"epochs": 2, "batch_size": 4, "progress": False, "precision": "fp32", "device": "cpu"}


def toy() -> None:
    """The data: toy.npz."""
    images = (np.arange(12 * 8 * 8 * 3) % 251).astype(np.uint8).reshape(12, 8, 8, 3)
    np.savez_compressed(
        "toy.npz", train_images=images, train_labels=np.arange(12) % 3, test_images=images[:6],
        test_labels=np.arange(6) % 3,
    )  # fmt: skip


def main(target: Path) -> None:
    """Make both runs in an empty folder, and pack it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        toy()
        state = build_backbone("wrn_10_1", 3).export_state_dict()
        fill = {key: torch.arange(x.numel()).reshape(x.shape).remainder(7).to(x.dtype) / 64 for key, x in state.items()}
        save_file(
            {key: x if state[key].is_floating_point() else state[key] for key, x in fill.items()}, SETTINGS["weights"]
        )
        mixskd.train(out="finished", run=RUN, **SETTINGS)
        step, calls = TrainStep.__call__, iter(range(4))

        def dying(*arguments: Any, **named: Any) -> Any:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return step(*arguments, **named)

        TrainStep.__call__ = dying  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            mixskd.train(out="unfinished", run=RUN, **SETTINGS)
        TrainStep.__call__ = step  # type: ignore[method-assign]
        os.unlink("finished/checkpoint.pt")
        with tarfile.open(target, "w:xz") as packed:
            packed.add(".", arcname=".")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
