"""Using a deployed classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mixskd.data.images import decode_image
from mixskd.deploy.model_file import load_model
from mixskd.errors import UserError, check_positive


@torch.inference_mode()
def predict(path: str | Path, images: Sequence[str | Path], *, top: int = 5) -> list[dict[str, Any]]:
    """The ``top`` likeliest classes of each image file: ``{"image", "classes": [{"name", "probability"}]}``.

    Raises UserError naming a file that cannot be read.
    """
    check_positive(top=top)
    model = load_model(path)
    transform = model.preprocess.transform()
    predictions = []
    for image in images:
        probabilities = model(transform(decode_image(image, enough=model.preprocess.enough))[None]).softmax(1)[0]
        if not probabilities.isfinite().all():
            raise UserError(f"the classifier gives no finite numbers for {image}; its weights are of no use")
        values, indices = probabilities.topk(min(top, len(model.classes)))
        classes = [
            {"name": model.classes[index], "probability": value}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]
        predictions.append({"image": str(image), "classes": classes})
    return predictions
