"""Backbones made of the parts of a library's model (timm, torchvision, transformers), whose weights keep its keys."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.backbones.heads import as_head, as_weights
from mixskd.backbones.staged import StagedBackbone
from mixskd.backbones.tokens import FeatureMap, spatial
from mixskd.errors import UserError, first_line

MISFITS = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError, AssertionError)
SIZES = (16, 32, 64, 96, 128, 160, 192, 224, 256)


@dataclass
class Parts:
    """The parts of a library's model: stages, a head on pooled features, and a pooling (the average if None)."""

    stages: list[nn.Module]
    head: nn.Module
    pool: nn.Module | None = None


@dataclass(frozen=True)
class Library:
    """How to build a library's model and how to cut it.

    Args:
        create: a new model, initialised as the library does, from the number of classes.
        cut: the parts of a model; raises one of ``MISFITS`` if it cannot be cut.
        default_size: the usual height and width of the images, in pixels.
        fixed: whether the model takes only images of that size.
        channels: of the images.
    """

    create: Callable[[int], nn.Module]
    cut: Callable[[nn.Module], Parts]
    default_size: int
    fixed: bool = False
    channels: int = 3


class LibraryBackbone(StagedBackbone):
    """A library's model as stages, a pooling and a head. Fresh copies of stages are parts of a new model.

    ``tensors`` is the whole model's ``state_dict(keep_vars=True)``. Raises ValueError if the parts lack some.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], parts: Parts, library: Library, name: str, classes: int, min_size: int
    ) -> None:
        names: dict[int, list[str]] = {}
        for key, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(key)
        super().__init__(
            parts.stages, parts.head, name=name, min_size=min_size, default_size=library.default_size, pool=parts.pool,
            in_channels=library.channels,
        )  # fmt: skip
        self.library, self.fixed = library, library.fixed
        self.keys = {key: names[id(x)].pop(0) for key, x in self.state_dict(keep_vars=True).items()}
        if any(names.values()):
            raise ValueError(f"parts of the model are in no stage: {[key for left in names.values() for key in left]}")
        if self.num_classes != classes:
            raise ValueError(f"{self.num_classes} outputs, not {classes}")

    def fresh(self) -> Parts:
        """The parts of a new model."""
        return self.library.cut(self.library.create(self.num_classes))

    def fresh_tail(self, k: int) -> nn.Sequential:
        return nn.Sequential(*self.fresh().stages[k:])

    def fresh_head(self) -> nn.Module:
        return as_head(self.fresh().head)

    def fresh_branches(self) -> tuple[list[nn.Sequential], list[nn.Module]]:
        self.require_stages("an auxiliary branch")
        made = [(k, self.fresh()) for k in range(1, len(self.stages))]
        return [nn.Sequential(*parts.stages[k:]) for k, parts in made], [as_head(p.head) for _, p in made]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the library's model beside its name and number of classes, such as an image size."""
        return dict(getattr(self.library.create, "keywords", {}))

    def _exported(self, key: str) -> str:
        return self.keys[key]


def assemble(name: str, classes: int, library: Library) -> LibraryBackbone:
    """A new model of ``library``, cut into stages; one stage if it cannot be cut or the cut gives other logits.

    Raises UserError if the model cannot take images of its own size.
    """
    model = library.create(classes)
    channels = library.channels
    min_size = library.default_size if library.fixed else smallest_image(model, library.default_size, channels)
    size = library.default_size if library.fixed else min(library.default_size, max(64, 2 * min_size))
    try:
        expected = logits(model, size, channels)
    except MISFITS as error:
        raise UserError(f"{name} does not take images of {size} px: {first_line(error)}") from None
    reason = ""
    for cut in (library.cut, without_classifier, undivided):
        tensors = model.state_dict(keep_vars=True)
        try:
            backbone = LibraryBackbone(tensors, cut(model), library, name, classes, min_size)
            if same(expected, logits(backbone, size, channels)):
                backbone.uncut = reason
                return backbone
        except MISFITS:
            pass
        reason = "its layers are not a chain of stages, a pooling and a head"
        model = library.create(classes)
        expected = logits(model, size, channels)
    raise UserError(f"{name} is not an image classifier that gives one vector of {classes} logits per image")


def without_classifier(model: nn.Module) -> Parts:
    """``model`` as one stage that ends before its last linear layer."""
    path, head = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return Parts([model], head, pool=nn.Identity())


def undivided(model: nn.Module) -> Parts:
    """``model`` as one stage that returns logits."""
    return Parts([model], nn.Identity(), pool=nn.Identity())


def shell(model: Any, children: Iterable[str] = (), tensors: Iterable[str] = ()) -> Any:
    """A shallow copy of ``model`` that keeps only the named children and tensors.

    Methods of the model's class work on it as far as they use only these.
    """
    part, keep, own = copy.copy(model), set(children), set(tensors)
    part._modules = {key: value for key, value in model._modules.items() if key in keep}
    part._parameters = {key: value for key, value in model._parameters.items() if key in own}
    part._buffers = {key: value for key, value in model._buffers.items() if key in own}
    return part


class ChannelsLast(nn.Module):
    """A part of a net that computes on ``B x H x W x C``, as a stage on maps ``B x C x H x W``.

    The ``first`` part takes images.
    """

    def __init__(self, module: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.module, self.first = module, first

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x if self.first else x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OnPooled(nn.Module):
    """A head on maps, for pooled features ``B x C``: they become a map of one position."""

    def __init__(self, model: Any, function: str, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.function, self.axes = model, function, axes

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model, self.function)(self.as_map(x))

    def split(self) -> tuple[Callable[[Tensor], Tensor], nn.Linear] | None:
        """The layers before the last one, and the last one; None if it is not linear."""
        if isinstance(self.model, nn.Sequential) and isinstance(self.model[-1], nn.Linear):
            layers = self.model[:-1]
            return (lambda x: layers(self.as_map(x))), self.model[-1]
        last = self.model.get_classifier() if hasattr(self.model, "get_classifier") else None
        if not isinstance(last, nn.Linear):
            return None
        return (lambda x: getattr(self.model, self.function)(self.as_map(x), pre_logits=True)), last

    def as_map(self, x: Tensor) -> Tensor:
        """``x`` with the axes of a map."""
        for axis in self.axes:
            x = x.unsqueeze(axis)
        return x


class PoolMap(nn.Module):
    """A library's pooling module, for maps of any precision; returns ``B x C``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, feature_map: FeatureMap) -> Tensor:
        x = spatial(feature_map)
        return self.module(as_weights(x, self.module)).flatten(1)


def smallest_image(model: nn.Module, default: int, channels: int = 3) -> int:
    """The smallest of ``SIZES`` that the model can take, in pixels."""
    probe = copy.deepcopy(model).to("meta").eval()
    for size in (size for size in SIZES if size < default):
        with contextlib.suppress(*MISFITS):
            probe(torch.empty(1, channels, size, size, device="meta"))
            return size
    return default


@torch.no_grad()
def logits(model: nn.Module, size: int, channels: int = 3) -> Tensor:
    """The logits of two random images in evaluation mode; on the meta device without values."""
    was, device = model.training, next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, size, size, generator=generator if device.type != "meta" else None, device=device)
    result = model.eval()(images)
    model.train(was)
    return result


def same(expected: Tensor, given: Tensor) -> bool:
    """Whether both logits are equal up to rounding; on the meta device, whether the shapes are equal."""
    if expected.shape != given.shape:
        return False
    return expected.is_meta or torch.allclose(given, expected, rtol=1e-4, atol=1e-5)
