"""The suite ``corruption``: accuracy under common corruptions (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mixskd.errors import UserError, unknown
from mixskd.evaluation.base import Batches, Context, percent, report
from mixskd.evaluation.corruptions import CORRUPTIONS, corrupt


@dataclass(frozen=True)
class Corruption:
    """The mean error over common corruptions, each at several severities, and that of each.

    Args:
        names: corruptions; all twelve if empty.
        severities: 1 to 5.
        images: corrupt a seeded random choice of so many images; 0 for all of them.
    """

    name: ClassVar[str] = "corruption"
    about: ClassVar[str] = "error under twelve common corruptions at five severities"

    names: tuple[str, ...] = ()
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    images: int = 2000

    def __post_init__(self) -> None:
        if wrong := next((name for name in self.names if name not in CORRUPTIONS), None):
            raise unknown("corruption", wrong, CORRUPTIONS)
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise UserError(f"corruption.severities must be numbers from 1 to 5, not {list(self.severities)}")
        if self.images < 0:
            raise UserError(f"corruption.images must be 0 (all) or above, not {self.images}")

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``mean_corruption_error`` and ``clean_error`` of the same images, and ``corruptions`` by name, in per cent.

        The mean is over corruptions of their means over severities; it is not divided by another network's errors.
        """
        names = self.names or tuple(CORRUPTIONS)
        total = len(context.outputs(model, data, 0, 10).labels)
        chosen = torch.arange(total)
        if self.images:
            chosen = torch.randperm(total, generator=context.generator())[: self.images]
        keep = torch.zeros(total, dtype=torch.bool)
        keep[chosen] = True
        mean, std = (torch.tensor(list(v)).reshape(-1, 1, 1) for v in (context.mean, context.std))
        wrong = {(name, severity): 0 for name in names for severity in self.severities}
        clean, start = 0, 0
        with torch.inference_mode():
            for images, labels in context.batches(data, 1, 1):
                places = torch.arange(start, start + len(labels))
                start += len(labels)
                mask = keep[places]
                if not mask.any():
                    continue
                on_device = mask.to(context.device)
                images, labels, places = images[on_device], labels[on_device], places[mask]
                clean += int((model(images).argmax(1) != labels).sum())
                pixels = (images.cpu().float() * std + mean).clamp(0, 1)
                for name, severity in wrong:
                    x = (corrupt(pixels, name, severity, context.seed, places.tolist()) - mean) / std
                    wrong[name, severity] += int((model(x.to(images)).argmax(1) != labels).sum())
        count = len(chosen)
        errors = {name: [percent(wrong[name, s] / count) for s in self.severities] for name in names}
        means = {name: sum(values) / len(values) for name, values in errors.items()}
        overall = sum(means.values()) / len(means)
        return report(
            self, context, images=count, headline=("mean corruption error", overall), higher_is_better=False,
            protocol="own implementation of the corruptions, with the strengths of CIFAR-C below 64 px and of "
            "ImageNet-C from there on; glass blur, snow and frost are left out; errors are not divided by those of "
            "another network",
            clean_error=percent(clean / count), mean_corruption_error=overall,
            corruptions={name: {"error": means[name], "by_severity": errors[name]} for name in names},
        )  # fmt: skip
