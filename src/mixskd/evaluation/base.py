"""The shape of every suite, and what a suite is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mixskd.errors import UserError

PART = 1024  # images whose probabilities are in memory at one time
Batches = Iterable[tuple[Tensor, Tensor]]
"""One split that can be iterated again and again, in the same order: normalised images and class indices."""


@dataclass(frozen=True)
class Context:
    """What a suite knows besides the model and the images.

    Args:
        device: where the model is, and where the batches are moved to.
        seed: of every draw.
        mean: of the normalisation, one number a channel, in units of 0 to 1.
        std: of the normalisation.
        split: the name of the split that is evaluated.
        classes: names, in the order of the logits; empty if there are none.
        paths: one name or path an image of the split, in order; empty if there are none.
        progress: is called with the share of a suite that is done, 0 to 1.
        train: the training images without augmentation, for suites that fit something on features.
        val: the validation split, for suites that fit something on it.
        others: further classifiers by name, for suites that compare.
        name: how the evaluated classifier is called beside them.
        other_data: the splits of another data set, normalised as the model expects.
        other_name: how that data set is called.
        corrupted: published images of corruptions, for the suite that scores them.
        keep_features: :meth:`outputs` also keeps what the model's head is given, for a suite that wants it.
    """

    device: torch.device
    seed: int = 0
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    split: str = "test"
    classes: Sequence[str] = ()
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
        """The batches of ``data`` on the device; they are ``part`` of ``parts`` equal shares of the suite's work."""
        number = len(data) if isinstance(data, Sized) else None
        for done, (images, labels) in enumerate(data, start=1):
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            if number:
                self.progress((part + done / number) / parts)
        self.progress((part + 1) / parts)

    def outputs(self, model: nn.Module, data: Batches, part: int = 0, parts: int = 1) -> Outputs:
        """The logits of ``model`` for ``data``, computed once for all suites that share this context."""
        key = (id(model), id(data))
        if key not in self.known:
            logits, labels, features = [], [], []
            watched: AbstractContextManager[list[Tensor]] = nullcontext([])
            if self.keep_features and hasattr(model, "head"):
                watched = head_inputs(model)
            with watched as seen, torch.inference_mode():
                for images, targets in self.batches(data, part, parts):
                    logits.append(model(images).float().cpu())
                    labels.append(targets.cpu())
                    features += [x.float().flatten(1).cpu() for x in seen]
                    seen.clear()
            if not labels:
                raise UserError(f"the split {self.split!r} holds no image; there is nothing to evaluate")
            # The model and the data are kept as well, so that no later object can have their ids.
            kept = torch.cat(features) if features else None
            self.known[key] = Outputs(torch.cat(logits), torch.cat(labels), (model, data), kept)
            check_labels(self.known[key])
        return self.known[key]

    def class_name(self, index: int) -> str:
        """The name of class ``index``, or its number as text."""
        return str(self.classes[index]) if self.classes else str(index)

    def generator(self) -> torch.Generator:
        """A new generator on the CPU: its draws do not depend on the device."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Outputs:
    """Logits ``N x C`` in fp32 and labels ``N``, both on the CPU; if they are kept, features ``N x D`` as well."""

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

    def in_parts(self, size: int = PART) -> Iterator[tuple[Tensor, Tensor]]:
        """Probabilities and labels of ``size`` images at a time, in order."""
        for logits, labels in zip(self.logits.split(size), self.labels.split(size), strict=True):
            yield logits.double().softmax(1), labels


@contextmanager
def head_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets what ``model.head`` is given at each forward pass within the context."""
    seen: list[Tensor] = []
    head: nn.Module = model.head  # type: ignore[assignment]
    handle = head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


def images_in(data: Batches) -> int:
    """How many images ``data`` holds; they are read only if it does not say."""
    number: int | None = getattr(data, "number", None)
    return sum(len(targets) for _, targets in data) if number is None else number


def picked(data: Iterable[tuple[Tensor, Tensor]], chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of ``data`` where the mask ``chosen`` is true, in batches as large as the first of ``data``.

    A network is several times slower on the few images that would be left of each batch.
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
    (``name``, ``value``, ``higher_is_better``), and what the suite measured.
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
    """The result of ``suite`` in the common form."""
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
