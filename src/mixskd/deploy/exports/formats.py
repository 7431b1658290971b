"""The export formats, their suffixes and options. It imports no torch."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixskd.config.types import Settings
from mixskd.errors import UserError, unknown

STATE_DICT = (".safetensors", ".pth", ".pt")
SUFFIXES: dict[str, tuple[str, ...]] = {
    "torchvision": STATE_DICT,
    "timm": STATE_DICT,
    "onnx": (".onnx",),
    "pt2": (".pt2",),
    "safetensors": (".safetensors",),
    "pth": (".pth", ".pt"),
    "mmdetection": (".pth",),
    "mmsegmentation": (".pth",),
    "detectron2": (".pth",),
}
"""The suffixes of each format."""

BY_SUFFIX = {".pth": "pth", ".pt": "pth", ".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}
"""The format of a suffix, where no format is named."""

DEFAULT_NAMES = {
    "torchvision": "model.torchvision.safetensors",
    "timm": "timm/model.safetensors",
    "onnx": "model.onnx",
    "pt2": "model.pt2",
    "safetensors": "exported.safetensors",
    "pth": "model.pth",
    **{name: f"backbone.{name}.pth" for name in ("mmdetection", "mmsegmentation", "detectron2")},
}

GRAPHS = ("onnx", "pt2")
Input = Literal["float", "unit", "uint8"]
Dtype = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Options(Settings, prefix="--"):
    """What a graph (``onnx``, ``pt2``) contains beside the network.

    Args:
        input: ``float`` takes normalised images, ``unit`` images in [0, 1], ``uint8`` images of 0 to 255; the graph
            normalises the latter two.
        softmax: whether it gives probabilities in place of logits; by a sigmoid where an image may have several labels.
        temperature: divides the logits before the softmax: above 0, or ``stored`` for the one that
            ``mixskd calibrate`` wrote into the model file; 1 if None.
        dynamic_size: whether height and width are dynamic, not only the number of images.
        dtype: type of weights and arithmetic: ``fp32``, ``fp16`` or ``int8``; the latter two only for ``onnx``.
    """

    input: Input = "float"
    softmax: bool = False
    temperature: float | str | None = None
    dynamic_size: bool = False
    dtype: Dtype = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.temperature, str):
            with suppress(ValueError):  # a number as text; other text is refused by check()
                object.__setattr__(self, "temperature", float(self.temperature))

    def check(self, to: str) -> None:
        """Raises UserError for an invalid temperature, and for options that the format ``to`` does not have."""
        given = {
            "--input": self.input != "float",
            "--softmax": self.softmax,
            "--temperature": self.temperature is not None,
            "--dynamic-size": self.dynamic_size,
        }
        if to not in GRAPHS and (flag := next((flag for flag, is_given in given.items() if is_given), None)):
            raise UserError(f"{flag} is for graphs (--to onnx, --to pt2); {to} holds only weights")
        if to != "onnx" and self.dtype != "fp32":
            raise UserError(f"--dtype {self.dtype} is for --to onnx; {to} is written in fp32")
        if self.temperature is None:
            return
        if not self.softmax:
            raise UserError("--temperature divides the logits before the softmax; add --softmax")
        if isinstance(self.temperature, str):
            if self.temperature != "stored":
                raise UserError(f"--temperature must be a number above 0, or stored, not {self.temperature!r}")
        elif not 0 < self.temperature < math.inf:
            raise UserError(f"--temperature must be a finite number above 0, or stored, not {self.temperature}")


def resolve(to: str | None, out: str | Path | None, folder: Path) -> tuple[str, Path]:
    """The format and the file to write, from ``--to`` and ``--out``; one of them may be missing.

    A timm export may be given a folder, for ``model.safetensors`` in it. Raises UserError for an unknown format, a
    suffix that does not fit it, and if both are missing.
    """
    if to is not None and to not in SUFFIXES:
        raise unknown("export format", to, SUFFIXES)
    if out is None:
        if to is None:
            raise UserError("name a format with --to, or a file with --out, such as --out model.onnx")
        return to, folder / DEFAULT_NAMES[to]
    path = Path(out)
    suffix = path.suffix.lower()
    if to is None:
        if suffix not in BY_SUFFIX:
            raise UserError(f"{path} does not say what to write; end it in {', '.join(BY_SUFFIX)}, or name --to")
        return BY_SUFFIX[suffix], path
    if to == "timm" and (path.is_dir() or not suffix):
        return to, path / "model.safetensors"
    if suffix not in SUFFIXES[to]:
        raise UserError(f"--to {to} writes {' or '.join(SUFFIXES[to])}, not {path.name}; change the suffix or --to")
    return to, path


def beside(to: str, target: Path) -> Path | None:
    """The JSON file that is written with ``target``: timm's own, or a description where the format cannot hold one."""
    if to == "timm":
        return target.with_name("config.json")
    return target.with_name(f"{target.name}.json") if to in ("torchvision", "pth") else None
