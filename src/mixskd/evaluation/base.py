"""The interface of an evaluation suite, and the context that it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mixskd.errors import UserError

PART = 1024  # images whose probabilities are in memory at a time
Batches = Iterable[tuple[Tensor, Tensor]]
"""Normalised images and labels of one split; each iteration has the same order."""


@dataclass(frozen=True)
class Context:
    """What a suite gets besides the model and the images.

    Args:
        device: the device of the model, to which batches are moved.
        seed: seed of all random numbers.
        mean: mean of the normalisation by channel, for pixels from 0 to 1.
        std: standard deviation of the normalisation by channel.
        split: the name of the split that is evaluated.
        classes: names, in the order of the logits; may be empty.
        thresholds: of the classes where an image may have several labels; else empty.
        paths: one name or path an image of the split, in order; may be empty.
        progress: called with the fraction of the suite that is done, 0 to 1.
        train: the training images without augmentation, for suites that fit something on features.
        val: the validation split, for suites that fit something on it.
        others: further classifiers by name, for suites that compare.
        name: name of the evaluated classifier beside them.
        other_data: the splits of another data set, normalised as the model expects.
        other_name: name of that data set.
        corrupted: published images of corruptions, for the suite that scores them.
        keep_features: whether :meth:`outputs` also keeps the input of the model's head.
    """

    device: torch.device
    seed: int = 0
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    split: str = "test"
    classes: Sequence[str] = ()
    thresholds: Sequence[float] = ()
    paths: Sequence[str] = ()
    progress: Callable[[float], None] = lambda share: None
    train: Batches | None = None
    val: Batches | None = None
    others: Mapping[str, nn.Module] = field(default_factory=dict)
    name: str = "model"
    other_data: Mapping[str, Batches] = field(default_factory=dict)
    other_name: str = ""
    corrupted: Any = None
    keep_features: bool = False
    known: dict[tuple[int, int], Outputs] = field(default_factory=dict, repr=False, compare=False)

    def batches(self, data: Batches, part: int = 0, parts: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``data`` on the device, with progress reported as part ``part`` of ``parts`` equal parts."""
        number = len(data) if isinstance(data, Sized) else None
        for done, (images, labels) in enumerate(data, start=1):
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            if number:
                self.progress((part + done / number) / parts)
        self.progress((part + 1) / parts)

    def outputs(self, model: nn.Module, data: Batches, part: int = 0, parts: int = 1) -> Outputs:
        """Logits of ``model`` for ``data``; they are computed once for all suites with this context."""
        key = (id(model), id(data))
        if key not in self.known:
            logits, labels, features = [], [], []
            watched: AbstractContextManager[list[Tensor]] = nullcontext([])
            if self.keep_features and hasattr(model, "head"):
                watched = head_inputs(model)
            with watched as inputs, torch.inference_mode():
                for images, targets in self.batches(data, part, parts):
                    logits.append(model(images).float().cpu())
                    labels.append(targets.cpu())
                    features += [x.float().flatten(1).cpu() for x in inputs]
                    inputs.clear()
            if not labels:
                raise UserError(f"the split {self.split!r} holds no image; there is nothing to evaluate")
            # The model and the data are kept as well, so that no later object gets their ids.
            kept = torch.cat(features) if features else None
            self.known[key] = Outputs(torch.cat(logits), torch.cat(labels), (model, data), kept)
            check_labels(self.known[key])
        return self.known[key]

    def class_name(self, index: int) -> str:
        """The name of class ``index``, or its number as text."""
        return str(self.classes[index]) if self.classes else str(index)

    def generator(self) -> torch.Generator:
        """A new generator on the CPU, so that random numbers do not depend on the device."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Outputs:
    """Logits ``N x C`` in fp32 and labels ``N`` on the CPU, and features ``N x D`` where they are kept."""

    logits: Tensor
    labels: Tensor
    source: tuple[Any, ...] = ()
    features: Tensor | None = None

    @property
    def predictions(self) -> Tensor:
        return self.logits.argmax(1)

    @property
    def probabilities(self) -> Tensor:
        """Softmax in float64, ``N x C``: twice the memory of the logits."""
        return self.logits.double().softmax(1)

    def in_parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Probabilities and labels of ``PART`` images at a time, in order."""
        for logits, labels in zip(self.logits.split(PART), self.labels.split(PART), strict=True):
            yield logits.double().softmax(1), labels


@contextmanager
def head_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list of the inputs of ``model.head``, one for each forward pass within the context."""
    inputs: list[Tensor] = []
    head: nn.Module = model.head  # type: ignore[assignment]
    handle = head.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def images_in(data: Batches) -> int:
    """Number of images in ``data``, counted where the loader does not have it."""
    number: int | None = getattr(data, "number", None)
    return sum(len(targets) for _, targets in data) if number is None else number


def random_choice(total: int, most: int, generator: torch.Generator) -> Tensor:
    """A mask of ``total`` images that is true for a random choice of ``most`` of them; for all if ``most`` is 0."""
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator)[: most or total]] = True
    return chosen


def selected(data: Iterable[tuple[Tensor, Tensor]], chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of ``data`` where the mask ``chosen`` is true, in batches as large as the first of ``data``.

    Full batches are several times faster than the few images that are left of each batch.
    """
    held: list[tuple[Tensor, Tensor]] = []
    size, seen = 0, 0
    for images, labels in data:
        size = size or len(labels)
        keep = chosen[seen : seen + len(labels)].to(labels.device)
        seen += len(labels)
        held.append((images[keep], labels[keep]))
        while sum(len(kept) for _, kept in held) >= size:
            x, y = (torch.cat(parts) for parts in zip(*held, strict=True))
            yield x[:size], y[:size]
            held = [(x[size:], y[size:])]
    x, y = (torch.cat(parts) for parts in zip(*held, strict=True))
    if len(y):
        yield x, y


class Evaluator(Protocol):
    """A suite: a frozen dataclass whose fields are its options, each with a documented default.

    Calling it gives plain JSON values: ``suite``, ``protocol``, ``split``, ``seed``, ``images``, ``headline``
    (``name``, ``value``, ``higher_is_better``), and what the suite measured. The class attribute ``Result``, if there
    is one, is the :class:`mixskd.evaluation.stored_results.SuiteResult` by which a stored result is checked.
    """

    name: ClassVar[str]
    about: ClassVar[str]

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]: ...


def report(
    suite: Evaluator,
    context: Context,
    *,
    images: int,
    protocol: str,
    headline: tuple[str, float],
    higher_is_better: bool = True,
    **measured: Any,
) -> dict[str, Any]:
    """The result of ``suite`` in the form that all suites share."""
    options = dataclasses.asdict(suite)  # type: ignore[call-overload]
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {
        "suite": suite.name,
        "protocol": {"text": protocol, **options},
        "split": context.split,
        "seed": context.seed,
        "images": images,
        "headline": {"name": headline[0], "value": headline[1], "higher_is_better": higher_is_better},
        **measured,
    }


def percent(share: float | Tensor) -> float:
    """A share of 1 in per cent."""
    return 100 * float(share)


def check_labels(outputs: Outputs) -> None:
    """Raises UserError if a label is no class of the model."""
    classes, highest = outputs.logits.shape[1], int(outputs.labels.max())
    if highest >= classes:
        raise UserError(
            f"the data have a label {highest}, but the model has {classes} classes; give data with the model's classes"
        )
