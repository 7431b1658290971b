"""Taking a classifier away: weights and graphs that load with nothing of ours, each checked before it is kept."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mixskd.backbones.from_timm import PREFIX
from mixskd.backbones.resnet import LAYOUTS
from mixskd.deploy.model_file import Classifier, load_model
from mixskd.deploy.older_frameworks import FRAMEWORKS, write_checkpoint
from mixskd.errors import UserError, unknown
from mixskd.files import replacing


def export(path: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write the classifier at ``path`` as ``to``: ``torchvision``, ``timm``, ``onnx`` or ``safetensors``.

    ``mmdetection``, ``mmsegmentation`` and ``detectron2`` take its backbone alone.

    ``torchvision`` and ``timm`` are state dicts in safetensors form for that library's own model, loaded into it
    strictly and compared on random images first. Returns the file written. Raises UserError where the architecture has
    no counterpart, a package is missing, or the copy does not give the same logits.
    """
    if to not in EXPORTERS:
        raise unknown("export format", to, EXPORTERS)
    model = load_model(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    names = {"onnx": "model.onnx", "safetensors": "exported.safetensors"}
    names |= {name: f"backbone.{name}.pth" for name in FRAMEWORKS}
    target = Path(out) if out is not None else folder / names.get(to, f"model.{to}.safetensors")
    with replacing(target) as temporary:
        EXPORTERS[to](model, temporary, Path(path))
    return target


def _safetensors(model: Classifier, target: Path, source: Path) -> None:
    shutil.copyfile(source / "model.safetensors" if source.is_dir() else source, target)


def _torchvision(model: Classifier, target: Path, source: Path) -> None:
    from torchvision.models import get_model

    if model.name not in LAYOUTS:
        raise UserError(f"torchvision has no {model.name}; export it --to onnx or --to safetensors")
    _state_dict(model, target, "torchvision", partial(get_model, model.name))


def _timm(model: Classifier, target: Path, source: Path) -> None:
    if model.name not in LAYOUTS and not model.name.startswith(PREFIX):
        raise UserError(f"timm has no {model.name}; export it --to onnx or --to safetensors")
    create = _needed("timm", "timm").create_model
    _state_dict(model, target, "timm", partial(create, model.name.removeprefix(PREFIX)))


def _state_dict(model: Classifier, target: Path, library: str, create: Callable[..., torch.nn.Module]) -> None:
    state = {key: value.contiguous() for key, value in model.export_state_dict().items()}
    theirs = create(num_classes=model.num_classes)
    theirs.load_state_dict(state, strict=True)
    images = _images(model)
    with torch.inference_mode():
        _compare(theirs.eval()(images), model(images), library)
    save_file(state, target, metadata={"format": "pt", "classes": "\n".join(model.classes)})


def _onnx(model: Classifier, target: Path, source: Path) -> None:
    _needed("onnx", "onnx")
    _needed("onnxscript", "onnx")
    runtime = _needed("onnxruntime", "onnx")
    images = _images(model)
    torch.onnx.export(
        model, (images,), str(target), dynamo=True, external_data=False, verbose=False,
        input_names=["images"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    session = runtime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    for batch in (images, images[:1]):
        (logits,) = session.run(None, {"images": batch.numpy()})
        with torch.inference_mode():
            _compare(torch.from_numpy(logits), model(batch), "onnxruntime")


def _older(model: Classifier, target: Path, source: Path, *, framework: str) -> None:
    write_checkpoint(model, target, framework)


def _images(model: Classifier) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, model.in_channels, model.image_size, model.image_size, generator=generator)


def _compare(theirs: Tensor, ours: Tensor, library: str) -> None:
    if not torch.allclose(theirs, ours, rtol=1e-3, atol=1e-3):
        difference = (theirs - ours).abs().max().item()
        raise UserError(f"the copy for {library} gives other logits (by {difference:.2g}); nothing was written")


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"this export needs {module}: pip install 'mixskd[{extra}]'") from None


EXPORTERS: dict[str, Callable[[Classifier, Path, Path], None]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "onnx": _onnx,
    "safetensors": _safetensors,
    **{name: partial(_older, framework=name) for name in FRAMEWORKS},
}
