"""Predicts the classes of image files, with their probabilities."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.artifacts.model_file import Classifier, at_temperature, load_model
from mixskd.backbones.ensemble import Flips
from mixskd.data import worker_count
from mixskd.data.file_loader import FileLoader
from mixskd.data.image_paths import check_paths, image_files
from mixskd.data.images import ADVICE, MAX_PIXELS, open_image
from mixskd.deploy.prediction_file import check_target, write_predictions
from mixskd.errors import UserError, check_positive
from mixskd.runtime.precision import choose_device, full_fp32
from mixskd.tasks.labels import task_of

UNKNOWN = "unknown"
BATCH_SIZE = 64


class Predictor:
    """The classifier at ``path``, for any number of images.

    Args:
        path: a run's folder or a model file.
        top: number of classes per image, the likeliest first.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: processes that decode images. If None, as many as the cores allow, and none for few images.
        max_pixels: the largest width times height of an image that is decoded, at most 178,956,970.
        temperature: divides the logits. If None, that of the model file (see :func:`mixskd.calibrate`), else 1.
        threshold: the probability, 0 to 1, below which the class is ``unknown``. If None, that of the model file,
            else 0. Where an image may have several labels, the one below which a class is not named, for all classes.
        flips: whether probabilities are the mean of those of an image and its mirror image, at twice the cost. A
            stored temperature was fitted without them.

    Raises UserError for an invalid value, and if only the temperature is given where a threshold is stored.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        top: int = 5,
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        workers: int | None = None,
        temperature: float | None = None,
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        flips: bool = False,
    ) -> None:
        check_options(top, batch_size, workers, temperature, threshold, max_pixels)
        model = load_model(path)
        fitted = model.temperature or 1.0
        if temperature not in (None, fitted) and threshold is None and model.threshold is not None:
            raise UserError(f"the threshold in {path} was fitted at the temperature {fitted:.4g}; give --threshold too")
        given = ((temperature, model.temperature), (threshold, model.threshold))
        self.uses_stored = any(ours is None and stored is not None for ours, stored in given)
        self.temperature = _first(temperature, model.temperature, 1.0)
        self.threshold = _first(threshold, model.threshold, 0.0)
        self.several = model.classes if model.thresholds else ()
        own = at_temperature(model.thresholds, self.temperature)
        self.thresholds = own if threshold is None else [threshold] * len(model.classes)
        self.task, self.top = task_of(model), min(top, len(model.classes))
        self.batch_size, self.workers = batch_size, workers
        self.max_pixels, self.device = max_pixels, choose_device(device)
        self.model: Classifier = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module = Flips(self.model, several=model.task == "multilabel") if flips else self.model

    def __call__(self, images: Sequence[str | Path]) -> Iterator[dict[str, Any]]:
        """The predictions for the files, folders and patterns ``images`` (:func:`mixskd.data.image_paths.image_files`).

        They come in the order of the files, as :func:`predict` describes them, and memory does not grow with their
        number. Raises UserError as :func:`predict` does.
        """
        loader = FileLoader(
            image_files(images), self.model.preprocess, self.device, batch_size=self.batch_size,
            workers=worker_count(self.workers), few_alone=self.workers is None, max_pixels=self.max_pixels,
        )  # fmt: skip
        seen, bad, first = 0, 0, ""
        for paths, batch, readable in loader:
            values, indices = self.likeliest(batch)
            finite = values.isfinite().all(1).tolist()
            rows = zip(paths, readable, finite, values.tolist(), indices.tolist(), strict=True)
            for path, fine, is_finite, probabilities, classes in rows:
                seen += 1
                if not fine:
                    bad, reason = bad + 1, self._reason(path)
                    first = first or reason
                    yield {"image": path, "error": reason}
                    continue
                if not is_finite:
                    raise UserError(f"the outputs of the classifier for {path} are not finite; train it again")
                yield self._prediction(path, probabilities, classes)
        if seen and seen == bad:
            raise UserError(f"none of the {seen} images can be read, the first: {first}" if seen > 1 else first)

    @full_fp32()
    @torch.inference_mode()
    def likeliest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The largest probabilities of normalised images ``B x C x H x W`` and their classes, ``B x top`` each.

        Where an image may have several labels, they are those of all classes.
        """
        p = self.task.probabilities(self.network(images).double() / self.temperature)
        return p.topk(len(self.several) or self.top)

    def _prediction(self, path: str, values: Sequence[float], indices: Sequence[int]) -> dict[str, Any]:
        classes = [
            {"name": self.model.classes[index], "probability": value}
            for value, index in zip(values, indices, strict=True)
        ]
        if self.several:
            named = {i for value, i in zip(values, indices, strict=True) if value >= self.thresholds[i]}
            return {"image": path, "labels": [self.several[i] for i in sorted(named)], "classes": classes}
        return {
            "image": path,
            "class": classes[0]["name"] if values[0] >= self.threshold else UNKNOWN,
            "classes": classes,
        }

    def _reason(self, path: str) -> str:
        """Why the file cannot be read."""
        try:
            open_image(path, self.model.preprocess, None, self.max_pixels)
        except UserError as error:
            return str(error).removesuffix(ADVICE)
        return f"the image {path} has changed while it was read"


def predict(
    path: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    top: int = 5,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    temperature: float | None = None,
    threshold: float | None = None,
    flips: bool = False,
) -> Any:
    """A prediction for each file, in order: ``{"image", "class", "classes": [{"name", "probability"}, ...]}``.

    ``images`` are files, folders (all images under them, sorted) and patterns; ``top`` and all after it are as for
    :class:`Predictor`. ``classes`` are the likeliest ones first, with probabilities from 0 to 1; ``class`` is the first
    of them, or ``unknown`` if its probability is below the threshold. An image that cannot be read is
    ``{"image", "error"}``, and the others follow. Where an image may have several labels, ``class`` is replaced by
    ``labels``, those whose probability reaches their threshold, and ``classes`` are all.

    With ``out``, a ``.csv`` or ``.jsonl`` file, they are written there as they come, whatever their number, and what is
    returned are the counts ``{"out", "images", "unknown", "skipped"}``. If anything fails, the file stays as it was.

    Raises UserError if no image can be read, for a folder or a pattern without images, and for an ``out`` of another
    suffix, or one that exists without ``overwrite``.
    """
    predictor = prepared(
        path, images, out=out, overwrite=overwrite, top=top, batch_size=batch_size, device=device, workers=workers,
        max_pixels=max_pixels, temperature=temperature, threshold=threshold, flips=flips,
    )  # fmt: skip
    if out is None:
        return list(predictor(images))
    return write_predictions(predictor(images), Path(out), top=predictor.top, several=predictor.several)


def prepared(
    path: str | Path, images: Sequence[str | Path], *, out: str | Path | None, overwrite: bool, **options: Any
) -> Predictor:
    """The predictor of :func:`predict`, after all checks that need no image. Raises UserError as it does."""
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    check_paths(images)
    return Predictor(path, **options)


def check_options(
    top: int = 1,
    batch_size: int = 1,
    workers: int | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Raises UserError for an invalid value."""
    check_positive(top=top, batch_size=batch_size, max_pixels=max_pixels)
    if workers is not None and not 0 <= workers <= 1024:
        raise UserError(f"workers must be from 0 to 1024, not {workers}")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be above 0 and finite, not {temperature}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold must be a probability from 0 to 1, not {threshold}")


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
