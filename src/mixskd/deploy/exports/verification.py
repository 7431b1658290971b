"""Compares a written copy with the classifier on images of its run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixskd.artifacts.model_file import Classifier
from mixskd.data.bundle import DataBundle
from mixskd.data.preprocess import image_tensor
from mixskd.data.worker_loader import Images
from mixskd.deploy.exports.description import output_name
from mixskd.deploy.exports.formats import Options
from mixskd.deploy.exports.graph import as_input, random_pixels
from mixskd.deploy.exports.job import Answer
from mixskd.errors import UserError, first_line
from mixskd.evaluation.split_scores import chosen_split, evaluation_data
from mixskd.tasks.labels import task_of

MOST = 64  # images on which an export is compared
CALIBRATION = 128  # training images for the ranges of int8
TOLERANCE = 1e-3  # of an fp32 copy, absolute and relative
LEAST_AGREEMENT = 0.9  # of the likeliest classes of an fp16 or int8 copy, on real images


@dataclass(frozen=True)
class Sample:
    """Preprocessed images: ``pixels`` ``N x C x H x W``, their ``source`` in words, and whether they are real."""

    pixels: Tensor
    source: str
    real: bool


@dataclass(frozen=True)
class Verification:
    """``agreement``: the share of images with the same likeliest class; ``difference``: the largest, of ``output``.

    ``equal``: whether the numbers are those of an fp32 copy.
    """

    images: int
    source: str
    agreement: float
    difference: float
    output: str
    equal: bool

    def __str__(self) -> str:
        same = round(self.agreement * self.images)
        return (
            f"checked on {self.source}: same top-1 on {same} of {self.images}, "
            f"{self.output} differ by at most {self.difference:.2g}"
        )


def sample_of(path: Path, model: Classifier, data: str | None) -> Sample:
    """Up to 64 test images of the run at ``path`` or of ``data``, preprocessed; random ones if they cannot be read.

    Raises UserError if ``data`` is given and cannot be read.
    """
    try:
        bundle, _ = evaluation_data(run_of(path), model, data, verify=False)
        split = chosen_split(bundle, None)
        pixels = pixels_of(bundle, split, MOST)
        return Sample(pixels, f"{len(pixels)} images of the split {split}", True)
    except UserError as error:
        if data is not None:
            raise
        size = model.image_size
        return Sample(random_pixels(model, 16, size, size), f"16 random images ({error})", False)


def training_images(path: Path, model: Classifier, data: str | None) -> Tensor:
    """Up to 128 training images of the run at ``path`` or of ``data``, preprocessed: ``N x C x H x W``.

    Raises UserError if they cannot be read.
    """
    try:
        bundle, _ = evaluation_data(run_of(path), model, data, "train", verify=False)
        return pixels_of(bundle, "train", CALIBRATION)
    except UserError as error:
        raise UserError(f"int8 needs training images for the ranges of its numbers: {error}") from None


def run_of(path: Path) -> Path:
    """The run's folder, where ``path`` is its model file."""
    return path.parent if path.name == "model.safetensors" else path


def pixels_of(bundle: DataBundle, split: str, most: int) -> Tensor:
    """Up to ``most`` images, spread evenly over ``split``, which may be sorted by class.

    Raises UserError if none can be read.
    """
    images, crop = bundle.splits[split], bundle.preprocess.crop()
    opened = Images(images, {}, bundle.preprocess)
    found, failure = [], UserError(f"the split {split} holds no image")
    for index in np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)):
        try:
            found.append(image_tensor(crop(opened.open(int(index)))))
        except UserError as error:  # the others can still be compared
            failure = error
    if not found:
        raise failure
    return torch.stack(found)


@torch.inference_mode()
def verify(
    model: Classifier, answer: Answer, sample: Sample, options: Options, temperature: float | None
) -> Verification:
    """The difference of ``answer`` from ``model`` on the images of ``sample``, one by one and in batches."""
    ours, theirs = [], []
    normalised = Options()
    for pixels in (sample.pixels[:1], *sample.pixels[1:].split(16)):
        if not len(pixels):
            continue
        logits = model(as_input(pixels, model, normalised))
        ours.append(task_of(model).probabilities(logits / (temperature or 1.0)) if options.softmax else logits)
        theirs.append(answer(as_input(pixels, model, options)).float())
    expected, given = torch.cat(ours), torch.cat(theirs)
    agreement = (expected.argmax(1) == given.argmax(1)).float().mean().item()
    difference = (expected - given).abs().max().item()
    equal = torch.allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE)
    return Verification(len(expected), sample.source, agreement, difference, output_name(options), equal)


@torch.inference_mode()
def check_other_size(model: Classifier, answer: Answer, options: Options, temperature: float | None) -> None:
    """Raises UserError if a graph of free height and width fails on oblong images of another size than its own."""
    size = model.image_size
    pixels = random_pixels(model, 3, size + 32, size + 64)
    try:
        found = verify(model, answer, Sample(pixels, "", False), options, temperature)
        check(found, options, real=False, force=False)
    except Exception as error:  # torch and onnxruntime each have their own
        raise UserError(
            f"the copy of {model.name} does not work on images of {size + 32} x {size + 64} px "
            f"({first_line(error)[:200]}); "
            "leave --dynamic-size out"
        ) from None


def check(found: Verification, options: Options, *, real: bool, force: bool) -> None:
    """Raises UserError if the copy is not good enough to be kept.

    An fp32 copy must give the same numbers. One in fp16 or int8 must give finite numbers, and on real images the same
    likeliest class for nine of ten, unless ``force`` is set.
    """
    if options.dtype == "fp32":
        if not found.equal:
            raise UserError(f"the {found.output} of the copy differ (by {found.difference:.2g}); nothing was written")
        return
    if not np.isfinite(found.difference):
        raise UserError(f"the outputs of the {options.dtype} copy are not finite; nothing was written")
    if real and found.agreement < LEAST_AGREEMENT and not force:
        raise UserError(
            f"the {options.dtype} copy names the same class on only {found.agreement:.0%} of {found.source}; nothing "
            "was written (--force writes it anyway)"
        )
