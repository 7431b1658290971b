"""Any convolutional classifier of timm, cut into stages where timm takes its feature maps."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from mixskd.backbones.staged import StagedBackbone
from mixskd.errors import UserError

PREFIX = "timm/"
STAGES = 4


class TimmBackbone(StagedBackbone):
    """A timm model as stages and a head; its weights keep timm's keys. Fresh copies have timm's own initialisation."""

    def fresh_tail(self, k: int) -> nn.Sequential:
        """A newly initialised copy of phi_{k+1} .. phi_K, the alignment module of branch k (1-based)."""
        return nn.Sequential(*cut(create(self.name, self.num_classes), self.name).stages[k:])


def timm_backbone(name: str, num_classes: int) -> TimmBackbone:
    """``timm/NAME``, untrained, with the deepest four of timm's feature maps as stage maps.

    Raises UserError if timm is missing, has no such model, or the model is not a chain of stages, global average
    pooling and a linear layer: the cut net must give the model's own logits.
    """
    model = create(name, num_classes)
    try:
        backbone = cut(model, name)
        backbone.min_size = smallest_image(backbone)
        agrees = same_logits(model, backbone)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError):
        agrees = False
    if not agrees:
        raise UserError(
            f"{name} is not a chain of stages with global average pooling and a linear classifier, so it has no place "
            "for branches; a ResNet, RegNet, EfficientNet or DenseNet of timm has"
        )
    return backbone


def create(name: str, num_classes: int) -> Any:
    """timm's own model. Raises UserError if timm or the model is not there."""
    try:
        import timm
    except ImportError:
        raise UserError(f"the backbone {name} needs timm: pip install 'mixskd[timm]'") from None
    try:
        return timm.create_model(name.removeprefix(PREFIX), num_classes=num_classes)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"timm cannot make {name}: {str(error).splitlines()[0]}; see timm.list_models()") from None


def cut(model: Any, name: str) -> TimmBackbone:
    """``model`` cut after the deepest of its feature maps; what follows the last one belongs to the last stage."""
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the classifier is a {type(head).__name__}")
    ends = [info["module"] for info in model.feature_info][-STAGES:]
    head_name = model.default_cfg["classifier"]
    stages: list[dict[str, nn.Module]] = [{} for _ in ends]
    passed = 0
    for path, module in units(model, ends, stops=("global_pool", head_name.split(".")[0])):
        stages[min(passed, len(ends) - 1)][path] = module
        passed += path in ends
    if passed < len(ends):
        raise ValueError("not every feature map is the output of a child module")
    return TimmBackbone(
        map(nested, stages), head, name=name, head_name=head_name,
        default_size=model.default_cfg["input_size"][-1],
    )  # fmt: skip


def units(model: nn.Module, ends: Sequence[str], stops: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The children of ``model`` in order with their paths, opened where a stage ends within; up to one of ``stops``."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if path in stops:
            return
        if any(end.startswith(f"{path}.") for end in ends):
            yield from units(child, ends, stops, f"{path}.")
        else:
            yield path, child


def nested(modules: dict[str, nn.Module]) -> nn.Sequential:
    """``modules``, by dotted path, in nested Sequentials, so that their parameters have the paths as keys."""
    tree: OrderedDict[str, Any] = OrderedDict()
    for path, module in modules.items():
        first, _, rest = path.partition(".")
        if rest:
            tree.setdefault(first, {})[rest] = module
        else:
            tree[first] = module
    return nn.Sequential(OrderedDict((k, nested(v) if isinstance(v, dict) else v) for k, v in tree.items()))


def smallest_image(backbone: StagedBackbone) -> int:
    """The smallest of the usual image sizes that passes all stages, in pixels."""
    probe = copy.deepcopy(backbone).to("meta").eval()
    for size in (16, 32, 64, 96, 128, 160, 192):
        with contextlib.suppress(RuntimeError):
            probe.feature_maps(torch.empty(1, probe.in_channels, size, size, device="meta"))
            return size
    return backbone.default_size


@torch.no_grad()
def same_logits(model: nn.Module, backbone: StagedBackbone) -> bool:
    """Whether both give the same logits on a random image; True on the meta device, where there are none."""
    if backbone.head.weight.is_meta:
        return True
    size = backbone.default_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected, logits = model.eval()(images), backbone.eval()(images)
    model.train(), backbone.train()
    return torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
