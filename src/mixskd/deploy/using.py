"""Judging and using a deployed classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mixskd.config import DataConfig, from_dict, read_yaml
from mixskd.data import load_data, make_test_loader
from mixskd.data.images import decode_image
from mixskd.data.worker_loader import eval_transform
from mixskd.deploy.model_file import load_model
from mixskd.errors import UserError, check_positive
from mixskd.evaluation.accuracy import evaluate_model


def evaluate(path: str | Path, data: str | None = None, *, batch_size: int = 256) -> dict[str, float]:
    """The scores of the classifier at ``path`` on the test images of ``data``, or of the data that its run names.

    Raises UserError if the data has other classes than the classifier, or there is no telling which data to take.
    """
    check_positive(batch_size=batch_size)
    model = load_model(path)
    config_file = Path(path) / "config.yaml"
    if config_file.is_file():
        experiment = from_dict(read_yaml(config_file))
        config, seed = experiment.data, experiment.run.seed
        if data is not None:
            config = dataclasses.replace(config, source=data)
    elif data is not None:
        config, seed = DataConfig(source=data), 0
    else:
        raise UserError(f"{path} does not say which data it was trained on; name some with --data")
    if Path(config.source).is_dir():
        config = dataclasses.replace(config, image_size=model.image_size)
    bundle = load_data(config, seed)
    if bundle.classes != model.classes:
        raise UserError(
            f"{config.source} has other classes ({len(bundle.classes)}) than the classifier ({len(model.classes)})"
        )
    bundle = dataclasses.replace(bundle, mean=model.mean, std=model.std, image_size=model.image_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = make_test_loader(bundle, device, workers=config.workers, batch_size=batch_size)
    return evaluate_model(model.to(device), loader, device)


@torch.inference_mode()
def predict(path: str | Path, images: Sequence[str | Path], *, top: int = 5) -> list[dict[str, Any]]:
    """The ``top`` likeliest classes of each image file: ``{"image", "classes": [{"name", "probability"}]}``.

    Raises UserError naming a file that cannot be read.
    """
    check_positive(top=top)
    model = load_model(path)
    transform = eval_transform(model.image_size, model.mean, model.std)
    predictions = []
    for image in images:
        probabilities = model(transform(decode_image(image))[None]).softmax(1)[0]
        values, indices = probabilities.topk(min(top, len(model.classes)))
        classes = [
            {"name": model.classes[index], "probability": value}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]
        predictions.append({"image": str(image), "classes": classes})
    return predictions
