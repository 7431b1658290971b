"""Weights as state dicts, by safetensors or ``torch.save``, under the keys of the models of other libraries."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixskd.artifacts.described_weights import read_described
from mixskd.backbones import build_backbone
from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.from_torchvision import TORCHVISION
from mixskd.backbones.library import LibraryBackbone
from mixskd.backbones.resnet import LAYOUTS
from mixskd.deploy.exports.description import KEY, as_text, describe, timm_data_config, torchvision_transform
from mixskd.deploy.exports.job import Answer, Job, Written
from mixskd.errors import UserError
from mixskd.runtime.files import load_tensors
from mixskd.runtime.packages import needed

# Keys of a configuration of timm that describe the weights that timm publishes.
OF_TIMMS_WEIGHTS = (
    "label_offset", "label_names", "pool_size", "tag", "license", "origin_url", "paper_name", "paper_ids",
)  # fmt: skip


def plain(job: Job) -> Written:
    """The weights under the architecture's customary keys. A safetensors file stays one that mixskd reads."""
    about = describe(job.model)
    if job.suffix == ".safetensors":
        _, description, tensors = read_described(job.source)
        save_file(
            tensors, job.target, metadata={"format": "pt", "mixskd": json.dumps(description), KEY: as_text(about)}
        )
    else:
        torch.save(state_of(job), job.target)
    theirs = build_backbone(job.model.name, job.model.num_classes, job.model.image_size, channels=job.model.in_channels)
    theirs.load_export_state_dict(read(job))
    return Written(theirs.eval(), about)


def torchvision(job: Job) -> Written:
    """The weights for torchvision's model; beside it how to make that model, and its transform."""
    from torchvision.models import get_model

    name = library_name(job, TORCHVISION, "torchvision")
    if job.model.in_channels != 3:
        raise UserError(f"torchvision makes no {name} of {job.model.in_channels} channels; export it --to onnx or pt2")
    arguments = {"num_classes": job.model.num_classes, **own_options(job, TORCHVISION)}
    theirs = {"model": name, "arguments": arguments, "transform": torchvision_transform(job.model.preprocess)}
    about = {**describe(job.model), "torchvision": theirs}
    write(job, about)
    return Written(loaded(get_model(name, **arguments), job), about)


def timm(job: Job) -> Written:
    """The weights for timm's model, and its ``config.json``, which ``timm.create_model("local-dir:...")`` reads."""
    name = library_name(job, PREFIX, "timm")
    options = own_options(job, PREFIX)
    model = needed("timm", "timm").create_model(name, num_classes=job.model.num_classes, **options)
    write(job, describe(job.model))
    return Written(loaded(model, job), timm_config(job, model, options))


def timm_config(job: Job, model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """timm's description of ``model`` as timm writes it, with our classes, image size and preprocessing."""
    hub = needed("timm.models._hub", "timm")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        hub.save_config_for_hf(model, file, {"label_names": list(job.model.classes)}, model_args=options or None)
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    own = config["pretrained_cfg"]
    for key in [key for key in own if key.startswith("test_") or key in OF_TIMMS_WEIGHTS]:
        del own[key]
    own |= {**timm_data_config(job.model.preprocess), "num_classes": job.model.num_classes, "custom_load": False}
    return config


def library_name(job: Job, prefix: str, library: str) -> str:
    """The name of the architecture in ``library``. Raises UserError if it has none."""
    name = job.model.name
    if name.startswith(prefix):
        return name.removeprefix(prefix)
    short = name.removeprefix(PREFIX).removeprefix(TORCHVISION)
    if short not in LAYOUTS:  # these are the same networks in both libraries
        raise UserError(f"{library} has no {name}; export it --to onnx, --to pt2 or --to safetensors")
    return short


def own_options(job: Job, prefix: str) -> dict[str, Any]:
    """Arguments of the library's model beside the number of classes, such as its fixed image size."""
    model = job.model
    if isinstance(model, LibraryBackbone) and model.name.startswith(prefix):
        return model.options
    return {} if model.in_channels == 3 else {"in_chans": model.in_channels}


def state_of(job: Job) -> dict[str, Tensor]:
    """The weights under the architecture's customary keys."""
    return {key: value.contiguous() for key, value in job.model.export_state_dict().items()}


def write(job: Job, about: dict[str, Any]) -> None:
    """Write the state dict in the format of the suffix."""
    if job.suffix == ".safetensors":
        save_file(state_of(job), job.target, metadata={"format": "pt", KEY: as_text(about)})
    else:
        torch.save(state_of(job), job.target)


def read(job: Job) -> dict[str, Tensor]:
    """The state dict that was written."""
    state: dict[str, Tensor] = load_file(job.target) if job.suffix == ".safetensors" else load_tensors(job.target)
    return state


def loaded(model: torch.nn.Module, job: Job) -> Answer:
    """The library's ``model`` with the written weights, in evaluation mode."""
    model.load_state_dict(read(job), strict=True)
    return model.eval()


FRAMEWORKS = ("mmdetection", "mmsegmentation", "detectron2")


def detectron2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's ``state`` (torchvision's keys) for Detectron2's ResNet.

    There the stem is ``stem.conv1``, ``layer1`` to ``layer4`` are ``res2`` to ``res5``, the norm of a convolution is
    its child ``norm``, and the shortcut is called ``shortcut``. It counts no batches.
    """
    found = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
        key = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", key)
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        found[key if key.startswith("res") else f"stem.{key}"] = value
    return found


def older_framework(job: Job, *, framework: str) -> Written:
    """The backbone for ``framework``: ``mmdetection``, ``mmsegmentation`` (both have torchvision's keys) or
    ``detectron2``. ``weights_only`` loading reads the file.

    ``mean`` and ``std`` are of images from 0 to 255, RGB, as these frameworks' settings take them. Raises UserError for
    a network that is no ResNet-18, 34, 50 or 101 of torchvision or timm.
    """
    model = job.model
    if model.in_channels != 3:
        raise UserError(f"{framework} takes RGB images, and this network has {model.in_channels} channels")
    if model.name.removeprefix(PREFIX) not in LAYOUTS:
        raise UserError(
            f"{framework} has no {model.name}; this export is for {', '.join(LAYOUTS)}, whose stem is for large images"
        )
    state = {key: value for key, value in state_of(job).items() if not key.startswith("fc.")}
    about = {"mean": [255 * x for x in model.mean], "std": [255 * x for x in model.std], "backbone": model.name}
    if framework == "detectron2":
        # With this its loader matches the keys by their endings, in any of its models.
        made = {"model": detectron2_state(state), "__author__": "mixskd", "matching_heuristics": True, "about": about}
    else:
        made = {"state_dict": state, "meta": about}
    torch.save(made, job.target)
    return Written(None)
