"""The suite ``corruption``: accuracy under common corruptions (Hendrycks and Dietterich, 2019)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from mixskd.config.records import Number, Numbers, Text
from mixskd.config.types import Settings, WholeNumber
from mixskd.errors import UserError, unknown
from mixskd.evaluation.base import Batches, Context, percent, random_choice, report
from mixskd.evaluation.corruptions.functions import FUNCTIONS, corrupt
from mixskd.evaluation.stored_results import SuiteResult, read_suite

OURS = (
    "own implementation of the corruptions, with the strengths of CIFAR-C below 64 px and of ImageNet-C from there on; "
    "the ice of frost is generated, not photographed"
)
Wrong = dict[tuple[str, int], int]
"""Misclassified images by corruption and severity."""


class Severities(Struct):
    """The severities of the corruptions."""

    severities: Numbers


class CorruptionError(Struct):
    """The errors under one corruption."""

    error: Number
    by_severity: Numbers


class CorruptionResult(SuiteResult):
    """The stored result."""

    clean_error: Number
    mean_corruption_error: Number
    protocol: Severities
    corruptions: dict[Text, CorruptionError]

    def __post_init__(self) -> None:
        severities = len(self.protocol.severities)
        if not self.corruptions or any(len(c.by_severity) != severities for c in self.corruptions.values()):
            raise ValueError(f"corruptions must have {severities} errors each, as there are severities")


@dataclass(frozen=True)
class Corruption(Settings, prefix="corruption."):
    """The mean error over common corruptions, each at several severities, and that of each.

    Args:
        names: the corruptions; all fifteen if empty, or all of those in ``files``.
        severities: the severities, from 1 to 5.
        images: corrupt this many images, a seeded random choice; 0 for all.
        files: a folder of published images, such as CIFAR-100-C or ImageNet-C; they are then scored in place of images
            that are corrupted here.
        reference: the folder of a run with a result of this suite; the errors are then also divided by the errors
            there.
    """

    name: ClassVar[str] = "corruption"
    about: ClassVar[str] = "error under fifteen common corruptions at five severities"
    Result: ClassVar[type] = CorruptionResult

    names: tuple[str, ...] = ()
    severities: Annotated[tuple[Annotated[int, Meta(ge=1, le=5)], ...], Meta(min_length=1)] = (1, 2, 3, 4, 5)
    images: WholeNumber = 2000
    files: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := next((name for name in self.names if name not in FUNCTIONS and not self.files), None):
            raise unknown("corruption", wrong, FUNCTIONS)

    def __call__(self, model: nn.Module, data: Batches, context: Context) -> dict[str, Any]:
        """``mean_corruption_error`` and ``clean_error`` of the same images, and ``corruptions`` by name, in per cent.

        The mean is over corruptions of their means over severities. With a ``reference`` there is also ``mce``, the
        mean over corruptions of the error divided by the reference's, in per cent, as it is published with AlexNet as
        the reference. Raises UserError for a reference on other images, corruptions or severities, and for ``files``
        that cannot be used.
        """
        known = tuple(context.corrupted.names()) if context.corrupted is not None else tuple(FUNCTIONS)
        names = self.names or known
        reference = self._reference(names, context) if self.reference else {}
        outputs = context.outputs(model, data, 0, 2)
        chosen = random_choice(len(outputs.labels), self.images, context.generator())
        with torch.inference_mode():
            if context.corrupted is None:
                wrong, count = self._generated(model, data, context, names, chosen)
            else:
                wrong, count = self._published(model, context, names)
        clean = percent((outputs.predictions != outputs.labels)[chosen].double().mean())
        errors = {name: [percent(wrong[name, s] / count) for s in self.severities] for name in names}
        means = {name: sum(values) / len(values) for name, values in errors.items()}
        overall = sum(means.values()) / len(means)
        relative = [100 * means[name] / reference[name] for name in reference]
        return report(
            self, context, images=count, headline=("mean corruption error", overall), higher_is_better=False,
            protocol=(OURS if context.corrupted is None else "published image files")
            + "; the mean error is not divided by that of another network, mce is",
            clean_error=clean, mean_corruption_error=overall,
            corruptions={name: {"error": means[name], "by_severity": errors[name]} for name in names},
            **({"mce": sum(relative) / len(relative)} if relative else {}),
        )  # fmt: skip

    def _generated(
        self, model: nn.Module, data: Batches, context: Context, names: tuple[str, ...], chosen: Tensor
    ) -> tuple[Wrong, int]:
        """Mistakes on the images ``chosen`` (a mask) of ``data``, which are corrupted here, and their number."""
        mean, std = (torch.tensor(list(v)).reshape(-1, 1, 1) for v in (context.mean, context.std))
        wrong: Wrong = {(name, severity): 0 for name in names for severity in self.severities}
        start = 0
        for images, labels in context.batches(data, 1, 2):
            kept = chosen[start : start + len(labels)].nonzero()[:, 0]
            places = (start + kept).tolist()
            start += len(labels)
            if not places:
                continue
            images, labels = images[kept], labels[kept]
            pixels = (images.cpu().float() * std + mean).clamp(0, 1)
            for name, severity in wrong:
                x = (corrupt(pixels, name, severity, context.seed, places) - mean) / std
                wrong[name, severity] += int((model(x.to(images)).argmax(1) != labels).sum())
        return wrong, int(chosen.sum())

    def _published(self, model: nn.Module, context: Context, names: tuple[str, ...]) -> tuple[Wrong, int]:
        """Mistakes on the published images, and their number in each corruption and severity."""
        cells = [(name, severity) for name in names for severity in self.severities]
        wrong, count = dict.fromkeys(cells, 0), 0
        for part, (name, severity) in enumerate(cells):
            batches, count = context.corrupted.batches(name, severity, self.images, context.generator())
            for images, labels in context.batches(batches, len(cells) + part, 2 * len(cells)):
                wrong[name, severity] += int((model(images).argmax(1) != labels).sum())
        return wrong, count

    def _reference(self, names: tuple[str, ...], context: Context) -> dict[str, float]:
        """The errors of the reference by corruption."""
        path = Path(self.reference) / "evaluation" / "corruption.json"
        if not path.is_file():
            raise UserError(f"there is no {path}; evaluate the reference with --suite corruption first")
        result = read_suite(path, "corruption")
        if not set(names) <= result["corruptions"].keys():
            raise UserError(f"{path} does not have all of these corruptions; evaluate the reference again")
        protocol, errors = result["protocol"], {name: result["corruptions"][name]["error"] for name in names}
        theirs = [tuple(protocol["severities"]), protocol.get("images"), protocol.get("files", ""), result["split"]]
        if [*theirs, result.get("seed")] != [self.severities, self.images, self.files, context.split, context.seed]:
            raise UserError(
                f"{path} has other severities, images, files, split or seed; evaluate the reference with the same ones"
            )
        if zero := next((name for name, error in errors.items() if error <= 0), None):
            raise UserError(f"{path} has an error of 0 under {zero}, by which nothing can be divided; name another run")
        return errors
