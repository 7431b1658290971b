"""model.safetensors: the deployed classifier's weights, and in the metadata what is needed to use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixskd.backbones import StagedBackbone, build_backbone
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError
from mixskd.files import check_readable, replacing

FORMAT = "mixskd-model-1"


class Classifier(StagedBackbone):
    """A deployed backbone with what is needed to use it: its ``classes``, and how an image becomes a tensor."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def save_model(
    backbone: StagedBackbone,
    path: Path,
    *,
    backbone_name: str,
    classes: Sequence[str],
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize: str = "",
) -> None:
    """Write ``backbone``'s weights under the architecture's customary keys, with what is needed to use them.

    ``image_size`` in pixels; ``mean`` and ``std`` of the channels of images in [0, 1]; ``resize`` as
    :class:`mixskd.data.preprocess.Preprocess` has it. Raises UserError on a full disk.
    """
    description = {
        "format": FORMAT,
        "backbone": backbone_name,
        "classes": list(classes),
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        "resize": Preprocess(image_size, tuple(mean), tuple(std), resize).resize,
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in backbone.export_state_dict().items()}
    with replacing(path) as temporary:
        # One key: safetensors writes several in random order, and equal runs are to give equal files.
        try:
            save_file(tensors, temporary, metadata={"mixskd": json.dumps(description)})
        except SafetensorError as error:
            raise UserError(f"cannot write {path}: {error}; is the disk full?") from None


def load_model(path: str | Path) -> Classifier:
    """The classifier in a run folder or a ``.safetensors`` file, in evaluation mode.

    It has ``classes``, ``image_size``, ``mean`` and ``std``; it maps normalised images ``B x 3 x H x W`` to logits
    ``B x N``. Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not one of ours.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    check_readable(path, f"no model at {path}; give a finished run's folder or a .safetensors file that mixskd wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is corrupt or truncated, or no safetensors file; copy or train it again") from None
    try:
        about: dict[str, Any] = json.loads(metadata.get("mixskd", "{}"))
        if about.get("format") != FORMAT:
            raise UserError(f"{path} was not written by mixskd: its metadata name no backbone and classes")
        model = cast(Classifier, build_backbone(about["backbone"], len(about["classes"]), about["image_size"]))
        model.load_export_state_dict(tensors)
        model.pretrained = True
        model.classes = tuple(about["classes"])
        model.image_size, model.mean, model.std = about["image_size"], tuple(about["mean"]), tuple(about["std"])
        model.preprocess = Preprocess(model.image_size, model.mean, model.std, about.get("resize", ""))
    except (KeyError, ValueError, TypeError, RuntimeError):
        raise UserError(f"{path} is damaged: its weights do not fit the backbone that it names") from None
    return model.eval()
