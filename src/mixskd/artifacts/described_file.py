"""Read and check safetensors files whose metadata describe their content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mixskd.errors import UserError
from mixskd.runtime.files import check_readable


def read_described(path: str | Path) -> tuple[Path, Any, dict[str, Tensor]]:
    """The path of the model file in a run folder or at ``path``, its description ({} if it has none), and its tensors.

    Nothing in the file is executed. Raises UserError if it is missing or corrupt.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    check_readable(path, f"no model at {path}; give a finished run's folder or a .safetensors file that mixskd wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is corrupt, truncated or not a safetensors file; copy or train it again") from None
    try:
        return path, json.loads(metadata.get("mixskd", "{}")), tensors
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: its metadata are not JSON; copy or train it again") from None


def check_weights_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError, naming the first of ``tensors`` that holds a NaN or an infinity."""
    if bad := next((key for key, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()), None):
        raise UserError(f"{path} cannot be used: its weights {bad} are not finite; the run that made it had diverged")
