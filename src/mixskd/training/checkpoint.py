"""Checkpoints: written whole or not at all, read without executing anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mixskd.errors import UserError
from mixskd.files import check_readable, load_tensors, replacing

FORMAT = "mixskd-checkpoint-1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path`` atomically. Raises UserError on a full disk."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in ``path``. Raises UserError if it is missing, truncated, corrupt, or not a checkpoint of mixskd."""
    check_readable(path, f"no checkpoint at {path}; train without --resume to start a run there")
    try:
        state = load_tensors(path, device)
    except ValueError:
        raise UserError(f"{path} is corrupt, truncated or no checkpoint of mixskd; delete it and start again") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of mixskd; give the folder of a run made by `mixskd train`")
    return state
