"""Files of weights that are described in their metadata: how each model file of mixskd is written, read and checked."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixskd.config.records import Mismatch, Record, read_record
from mixskd.errors import UserError
from mixskd.runtime.digest import digest_of
from mixskd.runtime.files import check_readable, replacing


def write_described(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors``, described by ``about`` and the digest of both. Raises UserError on a full disk."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    description = json.dumps({**about, "digest": content_digest(about, tensors)})
    with replacing(path) as temporary:
        # One key: safetensors writes several in random order, and equal runs are to give equal files.
        save_file(tensors, temporary, metadata={"mixskd": description})


def content_digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A digest of a description, apart from its own digest, and of the weights."""
    described = {key: value for key, value in about.items() if key != "digest"}
    return digest_of([described, {key: tensors[key] for key in sorted(tensors)}])


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


def description_as(
    kind: type[Record], path: Path, about: Any, tensors: Mapping[str, Tensor], *, digest: bool = True
) -> Record:
    """The description ``about`` of the ``tensors`` at ``path`` as the type ``kind``.

    Raises UserError if a value is not of its type, if the ``digest`` is asked for and differs, or if a weight is NaN or
    infinite.
    """
    try:
        record = read_record(about, kind)
        if digest and about.get("digest", "") != content_digest(about, tensors):
            raise Mismatch("its content is not what was written (its digest differs)")
    except ValueError as error:  # Mismatch, and what digest_of refuses
        raise UserError(f"{path} is damaged: {error}; copy or train it again") from None
    if bad := next((key for key, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()), None):
        raise UserError(f"{path} cannot be used: its weights {bad} are not finite; the run that made it had diverged")
    return record


def fitted(path: str | Path, make: Callable[[], Any], tensors: Mapping[str, Tensor]) -> Any:
    """``make()`` with the weights ``tensors``, under its exported keys. Raises UserError if they do not fit."""
    try:
        with torch.device("meta"):  # no memory is taken for what the file does not hold
            wanted = make().export_state_dict()
        if _forms(wanted) == _forms(tensors):
            network = make()
            network.load_export_state_dict(tensors)
            return network
    except (KeyError, ValueError, TypeError, RuntimeError):
        pass
    raise UserError(f"{path} is damaged: its weights do not fit the network that it names")


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    return {key: (x.shape, x.is_floating_point()) for key, x in tensors.items()}
