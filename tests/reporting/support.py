"""Run folders with the results of every suite, for the tests of the report."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from mixskd.errors.text import to_json
from mixskd.evaluation.base import Context
from mixskd.evaluation.suites import SUITES
from mixskd.evaluation.suites.corruption import Corruption

EVIL = "<script>alert(1)</script>"


def classifier(classes: int) -> nn.Module:
    """An untrained classifier of images of 8 px."""
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), head=nn.Linear(192, classes)))


def write_suites(run: Path, name: str = "model", classes: int = 3, images: int = 60) -> None:
    """What all suites say of an untrained classifier, with class names that a page must not take for code."""
    torch.manual_seed(0)
    data = [(torch.randn(images, 3, 8, 8), torch.arange(images) % classes)]
    model, other = classifier(classes), {"other $x_ & run": classifier(classes)}
    paths = [str(run / f"{index}.png") for index in range(images)]
    for index, path in enumerate(paths):
        Image.new("RGB", (300, 200), (index * 4 % 256, 90, 20)).save(path)
    names = (EVIL, "$x_", "_cat", *map(str, range(3, classes)))
    context = Context(
        torch.device("cpu"), classes=names, paths=paths, others=other, name=name,
        other_data={"train": data, "test": data}, other_name=EVIL,
    )  # fmt: skip
    (run / "evaluation").mkdir()
    for suite_name, kind in SUITES.items():
        suite = Corruption(names=("gaussian_noise", "contrast")) if kind is Corruption else kind()
        result = suite(model, data, context)
        (run / "evaluation" / f"{suite_name}.json").write_text(to_json(result))
