"""The classifier as a graph, with the normalisation and softmax of the options; and ``.pt2``, its torch.export file."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.artifacts.model_file import Classifier
from mixskd.deploy.exports.description import KEY, as_text, describe
from mixskd.deploy.exports.formats import Options
from mixskd.deploy.exports.job import Job, Written
from mixskd.errors import UserError, first_line
from mixskd.tasks.labels import task_of


class Deployed(nn.Module):
    """``model`` for the input that ``options`` name, with logits or probabilities as output.

    Args:
        model: maps normalised images ``B x C x H x W`` to logits ``B x N``.
        options: what the graph contains beside the network.
        temperature: divides the logits before the softmax, or the sigmoid of several labels an image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier, options: Options, temperature: float | None = None) -> None:
        super().__init__()
        self.model, self.options, self.temperature, self.task = model, options, temperature, task_of(model)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(model, name)).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.options.input == "uint8":
            x = x.to(torch.float32) / 255
        if self.options.input != "float":
            x = (x - self.mean) / self.std
        logits = self.model(x)
        if not self.options.softmax:
            return logits
        return self.task.probabilities(logits if self.temperature is None else logits / self.temperature)


def as_input(pixels: Tensor, model: Classifier, options: Options) -> Tensor:
    """Images ``B x C x H x W`` (uint8, or fp32 in units of a range) converted to the input that ``options`` name.

    Raises UserError for bytes of images with a range.
    """
    if options.input == "uint8":
        if model.preprocess.range is not None:
            raise UserError("--input uint8 is for images of 8 bits; for those with data.range take --input unit")
        return pixels
    x = pixels if pixels.is_floating_point() else pixels.to(torch.float32) / 255
    if options.input == "unit":
        return x
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (model.mean, model.std))
    return (x - mean) / std


def random_pixels(model: Classifier, *shape: int) -> Tensor:
    """Random images of ``shape`` (number, height, width), the same at each call: uint8, or fp32 with a range."""
    count, height, width = shape
    form, generator = (count, model.preprocess.channels, height, width), torch.Generator().manual_seed(0)
    if model.preprocess.range is not None:
        return torch.rand(form, generator=generator)
    return torch.randint(0, 256, form, generator=generator, dtype=torch.uint8)


def example(job: Job) -> Tensor:
    """Two images as input of the graph."""
    size = job.model.image_size
    return as_input(random_pixels(job.model, 2, size, size), job.model, job.options)


def free_sizes(job: Job) -> dict[int, Any]:
    """The dynamic axes of the input. Raises UserError if the network accepts one image size only."""
    free = {0: torch.export.Dim("batch")}
    if job.options.dynamic_size:
        if job.model.fixed:
            raise UserError(
                f"{job.model.name} takes only images of {job.model.image_size} px; leave --dynamic-size out"
            )
        free |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    return free


def no_graph(job: Job, error: Exception) -> UserError:
    """The error for a network that torch cannot export as a graph."""
    hint = "leave --dynamic-size out" if job.options.dynamic_size else "export it --to safetensors"
    return UserError(f"torch cannot make a graph of {job.model.name} ({first_line(error)[:200]}); {hint}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context without the warnings and log lines of the exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# Conditions on a dynamic height are then checked at run time, not proven at export. torch has this from 2.9 on.
CHECKED_LATER: dict[str, Any] = {
    name: True
    for name in inspect.signature(torch.export.export).parameters
    if name == "prefer_deferred_runtime_asserts_over_guards"
}


def pt2(job: Job) -> Written:
    """The program, with the description as its extra file ``description.json``."""
    module = Deployed(job.model, job.options, job.temperature).eval()
    free = free_sizes(job)
    try:
        program = torch.export.export(module, (example(job),), dynamic_shapes=(free,), **CHECKED_LATER)
    except Exception as error:  # torch has many for what it cannot trace
        raise no_graph(job, error) from None
    about = as_text(describe(job.model, job.options, job.temperature))
    with job.target.open("wb") as file:
        torch.export.save(program, file, extra_files={f"{KEY}.json": about})
    with job.target.open("rb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch 2.11 reads its own file so
        return Written(torch.export.load(file).module())
