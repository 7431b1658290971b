"""model.safetensors: the deployed classifier's weights, and in the metadata what is needed to use them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from torch import Tensor

from mixskd.artifacts.described_weights import description_as, fitted, read_described, write_described
from mixskd.backbones import StagedBackbone, build_backbone, check_local
from mixskd.config.data import MOST_CHANNELS
from mixskd.config.records import Mismatch, Number, PositiveNumber, Probability, Text, read_record
from mixskd.data.bundle import LARGEST_IMAGE, MOST_CLASSES
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError

FORMAT = "mixskd-model-3"
FIRST, OLDER = "mixskd-model-1", ("mixskd-model-1", "mixskd-model-2")  # the first has no field of NEWER
NEWER = {"digest", "resize", "temperature", "threshold", "range", "task", "thresholds"}


class Description(Struct):
    """The metadata of a model file."""

    format: Text
    backbone: Text
    classes: Annotated[list[Text], Meta(min_length=1, max_length=MOST_CLASSES)]
    image_size: Annotated[int, Meta(ge=1, le=LARGEST_IMAGE)]
    mean: Annotated[list[Number], Meta(min_length=1, max_length=MOST_CHANNELS)]
    std: Annotated[list[PositiveNumber], Meta(min_length=1, max_length=MOST_CHANNELS)]
    resize: Literal["", "crop", "pad", "squash", "stretch", "centre"] = ""  # the last two in older files
    temperature: PositiveNumber | UnsetType = UNSET
    threshold: Probability | UnsetType = UNSET
    range: Annotated[list[Number], Meta(min_length=2, max_length=2)] | UnsetType = UNSET
    task: Literal["classification", "multilabel"] = "classification"
    thresholds: list[Probability] = []
    digest: Text = ""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}")
        if self.range is not UNSET and self.range[0] >= self.range[1]:
            raise ValueError("range must be two numbers, the smaller first")
        if len(self.thresholds) != (len(self.classes) if self.task == "multilabel" else 0):
            raise ValueError("thresholds must be as many as classes where an image may have several, else none")


class Classifier(StagedBackbone):
    """A deployed backbone with what is needed to use it: its ``classes``, and how an image becomes a tensor.

    ``temperature`` and ``threshold`` are those that :func:`mixskd.calibrate` stored, or None. They are not part of the
    network: its logits are the same with and without them. ``task`` is ``classification``, or ``multilabel`` where an
    image may have several labels: a class is there if its probability at temperature 1 is not below its one of the
    ``thresholds`` (see :func:`at_temperature`).
    """

    classes: tuple[str, ...]
    preprocess: Preprocess
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float | None
    threshold: float | None
    task: str
    thresholds: tuple[float, ...]


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
    range: Sequence[float] | None = None,
    thresholds: Sequence[float] = (),
) -> None:
    """Write ``backbone``'s weights under the architecture's customary keys, with what is needed to use them.

    ``image_size`` in pixels; ``mean`` and ``std`` of the channels of images in [0, 1]; ``resize`` and ``range`` as
    :class:`mixskd.data.preprocess.Preprocess` has them; ``thresholds``, a probability a class, where an image may have
    several labels. Raises UserError on a full disk.
    """
    description = {
        "format": FORMAT,
        "backbone": backbone_name,
        "classes": list(classes),
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        "resize": Preprocess(image_size, tuple(mean), tuple(std), resize).resize,
        **({} if range is None else {"range": list(range)}),
    }
    if thresholds:
        description |= {"task": "multilabel", "thresholds": list(thresholds)}
    try:
        read_record(description, Description)
    except Mismatch as error:
        raise UserError(f"cannot save the classifier: {error}") from None
    write_described(path, description, backbone.export_state_dict())


def at_temperature(thresholds: Sequence[float], temperature: float) -> list[float]:
    """``thresholds`` of sigmoid(logits) for sigmoid(logits / temperature): they name the same labels."""
    scaled = torch.tensor(thresholds, dtype=torch.float64).logit() / temperature
    return list(thresholds) if temperature == 1 else scaled.sigmoid().tolist()


def store_calibration(path: str | Path, temperature: float, **thresholds: float | Sequence[float]) -> Path:
    """Put ``temperature`` (above 0) and ``threshold`` (0 to 1), or ``thresholds`` by class, into the model file at
    ``path``; the file's own path.

    All else in it stays as it is; a file of an older format becomes one of the present format. Raises UserError as
    :func:`load_model` does, and on a full disk, which leaves the file as it was.
    """
    path, stored, tensors = read_described(path)
    _checked(path, stored, tensors)
    about = {**stored, "format": FORMAT, "temperature": temperature, **thresholds}
    read_record(about, Description)
    write_described(path, about, tensors)
    return path


def load_model(path: str | Path) -> Classifier:
    """The classifier in a run folder or a ``.safetensors`` file, in evaluation mode.

    It has ``classes``, ``image_size``, ``mean`` and ``std``; it maps normalised images ``B x C x H x W`` to logits
    ``B x N``. Nothing in the file is executed. Raises UserError if it is missing, corrupt, or not written by mixskd.
    """
    path, stored, tensors = read_described(path)
    about = _checked(path, stored, tensors)
    check_local(about.backbone)
    make = partial(build_backbone, about.backbone, len(about.classes), about.image_size, channels=len(about.mean))
    model: Classifier = fitted(path, make, tensors)
    if about.image_size < model.min_size:
        raise UserError(f"{path} is damaged: {about.backbone} takes images of {model.min_size} px or more")
    model.pretrained = True
    model.classes = tuple(about.classes)
    model.image_size, model.mean, model.std = about.image_size, tuple(about.mean), tuple(about.std)
    values = None if about.range is UNSET else tuple(about.range)
    model.preprocess = Preprocess(model.image_size, model.mean, model.std, about.resize, values)
    model.temperature = None if about.temperature is UNSET else about.temperature
    model.threshold = None if about.threshold is UNSET else about.threshold
    model.task, model.thresholds = about.task, tuple(about.thresholds)
    return model.eval()


def _checked(path: Path, about: Any, tensors: Mapping[str, Tensor]) -> Description:
    """The description in ``about``. Raises UserError if it is not what :func:`save_model` writes, or was changed."""
    known = about.get("format") if isinstance(about, dict) else None
    if known not in (FORMAT, *OLDER):
        if isinstance(known, str) and known.startswith("mixskd-model-"):
            raise UserError(f"{path} was written by a newer mixskd ({known}); update this one")
        raise UserError(f"{path} was not written by mixskd: its metadata name no backbone and classes")
    return description_as(Description, path, about, tensors, digest=known != FIRST or bool(about.keys() & NEWER))
