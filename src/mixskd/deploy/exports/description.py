"""Description of an export for its user: classes, size, normalisation and resize rule."""

import json
import math
from typing import Any

from mixskd.artifacts.model_file import Classifier, at_temperature
from mixskd.data.preprocess import Preprocess
from mixskd.deploy.exports.formats import Options
from mixskd.runtime.version import __version__

KEY = "description"
"""Key of the description in the metadata of safetensors and ONNX files; in a .pt2 file it is ``description.json``."""


def describe(model: Classifier, options: Options | None = None, temperature: float | None = None) -> dict[str, Any]:
    """``model`` in plain values; for a graph also its input and output.

    ``resize`` says how a photograph is brought to ``image_size``: ``squash`` resizes it to height and width, ``crop``
    resizes the short side to ``short_side`` pixels and crops the centre (``crop_share`` is ``image_size /
    short_side``), and ``pad`` resizes the long side and fills up with the value ``fill`` of each channel, in the
    values of the file. ``range`` are the values that become 0 and 1. ``mean`` and ``std`` are of images in [0, 1].
    Where an image may have several labels, ``task`` is ``multilabel``, and a class is there if its probability is not
    below its of the ``thresholds``, which are those for probabilities at ``temperature``.
    """
    thresholds = at_temperature(model.thresholds, temperature or 1.0)
    about = {
        "made_by": f"mixskd {__version__}",
        "backbone": model.name,
        "classes": list(model.classes),
        **({"task": model.task, "thresholds": thresholds} if thresholds else {}),
        "image_size": model.image_size,
        "mean": list(model.mean),
        "std": list(model.std),
        "channels": model.preprocess.channels,
        "range": list(model.preprocess.range or (0, 255)),
        "resize": resize_rule(model.preprocess),
    }
    if options is None:
        return about
    channels = model.preprocess.channels
    images = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    kinds = {
        "float": f"{images} in [0, 1], minus mean, divided by std",
        "unit": f"{images} in [0, 1]",
        "uint8": f"{images} from 0 to 255",
    }
    size = ["height", "width"] if options.dynamic_size else [model.image_size] * 2
    about["input"] = {
        "name": "images",
        "dtype": "uint8" if options.input == "uint8" else "float32",
        "shape": ["batch", channels, *size],
        "values": kinds[options.input],
    }
    about["output"] = {
        "name": output_name(options),
        "dtype": "float32",
        "shape": ["batch", len(model.classes)],
        **({"temperature": temperature or 1.0} if options.softmax else {}),
    }
    return {**about, "dtype": options.dtype}


def output_name(options: Options) -> str:
    """``probabilities`` with a softmax, else ``logits``."""
    return "probabilities" if options.softmax else "logits"


def resize_rule(preprocess: Preprocess) -> dict[str, Any]:
    """``preprocess.resize`` in numbers."""
    rule: dict[str, Any] = {"rule": preprocess.resize, "crop_share": preprocess.image_size / preprocess.resized}
    if preprocess.resize == "crop":
        rule["short_side"] = preprocess.resized
    if preprocess.resize == "pad":
        low, high = preprocess.range or (0.0, 1.0)
        rule["fill"] = [low + (high - low) * x for x in preprocess.fill] if preprocess.range else preprocess.fill
    return {**rule, "interpolation": "bilinear", "antialias": True}


def as_text(about: dict[str, Any]) -> str:
    """``about`` as JSON."""
    return json.dumps(about, ensure_ascii=False)


def torchvision_transform(preprocess: Preprocess) -> dict[str, Any] | None:
    """The arguments of torchvision's ``ImageClassification`` preset; None for other rules than ``crop``."""
    if preprocess.resize != "crop":
        return None
    return {
        "crop_size": preprocess.image_size,
        "resize_size": preprocess.resized,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": "bilinear",
        "antialias": True,
    }


def timm_data_config(preprocess: Preprocess) -> dict[str, Any]:
    """``preprocess`` under timm's names, as ``timm.data.create_transform`` takes them."""
    size = preprocess.image_size
    share = size / preprocess.resized
    if math.floor(size / share) != preprocess.resized:  # timm rounds down, and the share is not exact
        share = size / (preprocess.resized + 0.5)
    return {
        "input_size": [preprocess.channels, size, size],
        "interpolation": "bilinear",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "crop_pct": share,
        "crop_mode": {"crop": "center", "pad": "border", "squash": "squash"}[preprocess.resize],
    }
