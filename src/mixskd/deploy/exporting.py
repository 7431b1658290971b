"""Export a classifier as weights or a graph that loads without mixskd. Each copy is checked before it is kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mixskd.artifacts.model_file import Classifier, load_model
from mixskd.deploy.exports import state_dicts
from mixskd.deploy.exports.formats import Options, beside, resolve
from mixskd.deploy.exports.graph import pt2
from mixskd.deploy.exports.job import Job, Written
from mixskd.deploy.exports.onnx_file import onnx
from mixskd.deploy.exports.state_dicts import FRAMEWORKS
from mixskd.deploy.exports.verification import Verification, check, check_other_size, sample_of, training_images, verify
from mixskd.errors import UserError
from mixskd.runtime.files import replacing, write_text


@dataclass(frozen=True)
class Exported:
    """The ``file`` that was written, the JSON file ``beside`` it, and how the copy was ``verified``, where it was."""

    file: Path
    beside: Path | None
    verified: Verification | None


def export(
    path: str | Path,
    to: str | None = None,
    out: str | Path | None = None,
    *,
    options: Options | None = None,
    data: str | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Exported:
    """Write the classifier at ``path`` for use without mixskd.

    Args:
        path: a run's folder or a model file.
        to: ``torchvision`` or ``timm`` (weights for that library's model, with its configuration), ``onnx``, ``pt2``
            (a program of torch.export), ``safetensors`` or ``pth`` (weights under the architecture's own keys); or
            ``mmdetection``, ``mmsegmentation``, ``detectron2``, for the backbone of a ResNet. If None, the
            format of the suffix of ``out``.
        out: the file to write; beside the model if None. Its suffix must fit the format.
        options: what a graph contains beside the network.
        data: the data set whose images compare the copy with the classifier; the run's if None.
        overwrite: whether a file that is there may be replaced.
        force: whether an fp16 or int8 copy is kept although it names other classes than the classifier.

    Every copy but a bare backbone is compared on up to 64 test images, or on random ones if they cannot be read. Raises
    UserError where the architecture has no counterpart, a package is missing or broken, a file exists already, or
    the copy does not give the same answers; nothing is written then.
    """
    path, options = Path(path), options or Options()
    to, target = resolve(to, out, path if path.is_dir() else path.parent)
    options.check(to)
    side = beside(to, target)
    check_replaceable(path, [target, *([side] if side else [])], overwrite=overwrite)
    model = load_model(path)
    temperature = temperature_of(model, options)
    with replacing(target) as temporary:
        images = partial(training_images, path, model, data)
        job = Job(model, path, temporary, target.suffix.lower(), options, temperature, images)
        written = EXPORTERS[to](job)
        found = None
        if written.answer is not None:
            sample = sample_of(path, model, data)
            found = verify(model, written.answer, sample, options, temperature)
            check(found, options, real=sample.real, force=force)
            if options.dynamic_size:
                check_other_size(model, written.answer, options, temperature)
        if side is not None and written.beside is not None:
            write_text(side, json.dumps(written.beside, indent=2, ensure_ascii=False) + "\n")
    return Exported(target, side, found)


def check_replaceable(source: Path, files: list[Path], *, overwrite: bool) -> None:
    """Raises UserError if one of ``files`` exists and may not be replaced, or is the model itself."""
    model = source / "model.safetensors" if source.is_dir() else source
    for file in files:
        if not file.is_file():
            continue
        if model.is_file() and file.samefile(model):
            raise UserError(f"{file} is the model that is exported; give another file with --out")
        if not overwrite:
            raise UserError(f"{file} exists already; --overwrite replaces it, or give another file with --out")


def temperature_of(model: Classifier, options: Options) -> float | None:
    """The temperature of ``options``. Raises UserError if it is that of the model file, which has none."""
    if not isinstance(options.temperature, str):
        return options.temperature
    stored: float | None = getattr(model, "temperature", None)
    if stored is None:
        raise UserError("the model file holds no temperature; run mixskd calibrate first, or give a number")
    return stored


EXPORTERS: dict[str, Callable[[Job], Written]] = {
    "torchvision": state_dicts.torchvision,
    "timm": state_dicts.timm,
    "onnx": onnx,
    "pt2": pt2,
    "safetensors": state_dicts.plain,
    "pth": state_dicts.plain,
    **{name: partial(state_dicts.older_framework, framework=name) for name in FRAMEWORKS},
}
