"""A picture above the places in it that speak for the class that a network called it."""

from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from mixskd.artifacts.model_file import Classifier, load_model
from mixskd.errors import UserError
from mixskd.evaluation.grad_cam import grad_cam


class GradCamPicture:
    """Draws the Grad-CAM of the network in the folder ``run``, which is read on first use."""

    def __init__(self, run: Path) -> None:
        self.run = run

    @cached_property
    def model(self) -> Classifier | None:
        """The network; None if it cannot be read."""
        try:
            return load_model(self.run)
        except UserError:
            return None

    def __call__(self, image: Image.Image, name: str) -> Image.Image | None:
        """The RGB ``image`` as the network sees it, above what speaks for the class ``name``; None if nothing can."""
        model = self.model
        if model is None or name not in model.classes or not model.preprocess.usual:
            return None
        image = image.convert("L" if model.preprocess.channels == 1 else "RGB")
        heat = grad_cam(model, model.preprocess.transform()(image)[None], [model.classes.index(name)])
        if heat is None:
            return None
        pixels = np.asarray(model.preprocess.crop()(image).convert("RGB"))
        colours = 255 * colormaps["inferno"](heat[0].numpy())[..., :3]
        return Image.fromarray(np.vstack([pixels, (pixels + colours) / 2]).round().astype(np.uint8))
