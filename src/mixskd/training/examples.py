"""A few scored images and their mixes, with the predictions of the deployed classifier during a run."""

import dataclasses
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mixskd.data import make_test_loader
from mixskd.tasks.base import LabelTask
from mixskd.tasks.scoring import evaluation_mode
from mixskd.training.parts import Examples, Parts

IMAGES = 6
MIXES = 2


class ShowExamples:
    """Returns :class:`Examples` of a classifier that is being trained: the same images and mixes at every call.

    It is called between epochs. It does not change the run's random numbers or weights.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.task = parts, cast(LabelTask, parts.task)
        self.batch: tuple[Tensor, Tensor] | None = None

    def __call__(self) -> Examples:
        parts, data = self.parts, self.parts.data
        if self.batch is None:
            split = data.splits[data.scored]
            # Spread over the split, since files are often in the order of their classes.
            few = split.subset(np.linspace(0, len(split) - 1, min(IMAGES, len(split))).round().astype(int))
            some = dataclasses.replace(data, splits={data.scored: few})
            self.batch = next(iter(make_test_loader(some, parts.device, workers=0, batch_size=IMAGES)))
        images, labels = self.batch
        names = self.task.label_names(labels, data.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(parts.experiment.run.seed)
            generator = torch.Generator(parts.device).manual_seed(parts.experiment.run.seed)
            drawn = [parts.step.method.draw(images, generator) for _ in range(MIXES)]
        mixes = [mix for draws in drawn for mix in parts.step.method.image_mixes(draws)]
        columns = {"image": (images, names)}
        columns |= {f"mix {k}": (mix(images), mix.names(names)) for k, mix in enumerate(mixes, start=1)}
        columns = {title: (x, self._with_predictions(x, texts)) for title, (x, texts) in columns.items()}
        return Examples(columns, data.mean, data.std)

    def _with_predictions(self, images: Tensor, texts: list[str]) -> list[str]:
        deployed, classes = self.parts.deployed, self.parts.data.classes
        with torch.inference_mode(), evaluation_mode(deployed):
            p, best = self.task.probabilities(self.task.predict(deployed, images)).topk(min(2, len(classes)))
        predictions = [
            "\n".join(f"-> {100 * q:.0f} % {classes[i]}" for q, i in zip(*row, strict=True))
            for row in zip(p.tolist(), best.tolist(), strict=True)
        ]
        return [f"{text}\n{guess}" for text, guess in zip(texts, predictions, strict=True)]
