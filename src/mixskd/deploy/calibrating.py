"""A temperature and thresholds for ``predict``, fitted on the validation split and kept in the model file."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from mixskd.artifacts.model_file import Classifier, at_temperature, load_model, store_calibration
from mixskd.data import make_test_loader
from mixskd.errors import UserError, check_positive
from mixskd.evaluation.base import Context, Outputs, percent
from mixskd.evaluation.split_scores import evaluation_data
from mixskd.evaluation.suites.calibration import calibration, equal_width_error
from mixskd.runtime.precision import choose_device, full_fp32
from mixskd.tasks.metrics import binary_entropy, label_scores
from mixskd.tasks.temperature_scaling import best_temperature
from mixskd.tasks.thresholds import best_threshold, threshold_for_accuracy, threshold_for_coverage
from mixskd.training.run_lock import run_lock

TARGET_ACCURACY = 95.0
BINS = 15  # of ECE


def calibrate(
    path: str | Path,
    data: str | Path | None = None,
    *,
    target_accuracy: float | None = None,
    coverage: float | None = None,
    batch_size: int = 256,
    device: str = "auto",
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Fit a temperature and a threshold on ``val``, and store them in the model file at ``path``, or in that run.

    The temperature minimises the mean negative log-likelihood (Guo et al., 2017). If no image of ``val`` is
    misclassified it would go to 0, so it stays 1 then. The threshold is the lowest one at which the accuracy of the
    accepted images is at least ``target_accuracy`` (per cent; 95 if neither is given), or the highest one that accepts
    at least the share ``coverage`` (per cent). An image is accepted if its largest probability is not below it.

    Returns ``images``, ``temperature``, ``threshold``, ``before`` and ``after`` (``nll`` in nats and ``ece`` in per
    cent on ``val``, with 15 bins), ``top1`` of all images, ``accepted`` (their share in per cent), ``accepted_images``
    and ``accepted_top1``. Only :func:`mixskd.predict` uses what is stored.

    Where an image may have several labels, the negative log-likelihood is the binary cross-entropy, summed over the
    classes, and each class gets the threshold with the highest F1. The result then has ``thresholds`` (by class, for
    probabilities at the temperature) in place of ``threshold``, ``top1`` and the three values of accepted images, and
    ``before`` and ``after`` also have ``f1`` and ``f1_macro`` in per cent. ECE is that of each class (the distance of
    the mean probability in a bin from the share of its images that have the class), averaged over the classes (Kull et
    al., 2019).

    Raises UserError without ``val``, for a target where an image may have several labels, and if no threshold reaches
    ``target_accuracy``; the file then stays as it was.
    """
    check_positive(batch_size=batch_size)
    check_targets(target_accuracy, coverage)
    place = Path(path)
    model = load_model(place)
    several = model.task == "multilabel"
    if several and (target_accuracy, coverage) != (None, None):
        raise UserError("a target accuracy and a coverage are for one label an image; leave them out: each class of "
                        "several gets the threshold with the highest F1")  # fmt: skip
    with run_lock(place) if place.is_dir() else nullcontext():
        outputs = _outputs(place, model, data, batch_size, choose_device(device), progress)
        logits, labels = outputs.logits.double(), outputs.labels
        if several:
            stored, found = labels_fitted(logits, labels, model)
        else:
            stored, found = class_fitted(logits, labels, target_accuracy or TARGET_ACCURACY, coverage)
        store_calibration(place, **stored)
        return {"images": len(labels), "temperature": stored["temperature"], **found}


Fitted = tuple[dict[str, Any], dict[str, Any]]  # what is stored, and what is found


def class_fitted(logits: Tensor, labels: Tensor, target_accuracy: float, coverage: float | None) -> Fitted:
    """The temperature and the threshold of one label an image, from logits ``N x C``."""
    right = logits.argmax(1) == labels
    temperature = 1.0 if right.all() else best_temperature(logits, labels)
    confidence = (logits / temperature).softmax(1).max(1).values
    if coverage is not None:
        threshold = threshold_for_coverage(confidence, coverage)
    else:
        threshold = threshold_for_accuracy(confidence, right, target_accuracy)
    accepted = confidence >= threshold
    before, after = (calibration(logits / t, labels, BINS) for t in (1.0, temperature))
    return {"temperature": temperature, "threshold": threshold}, {
        "threshold": threshold,
        "before": {name: before[name] for name in ("nll", "ece")},
        "after": {name: after[name] for name in ("nll", "ece")},
        "top1": percent(right.double().mean()),
        "accepted": percent(accepted.double().mean()),
        "accepted_images": int(accepted.sum()),
        "accepted_top1": percent(right[accepted].double().mean()),
    }


def labels_fitted(logits: Tensor, labels: Tensor, model: Classifier) -> Fitted:
    """The temperature and the thresholds of several labels an image (logits and labels ``N x C``)."""
    right = (logits > 0) == (labels > 0)
    temperature = 1.0 if right.all() else best_temperature(logits, labels, binary_entropy)
    thresholds = [best_threshold(*column) for column in zip(logits.sigmoid().T, labels.long().T, strict=True)]

    def scores(t: float, at: Sequence[float]) -> dict[str, float]:
        p, named = (logits / t).sigmoid(), label_scores(logits.sigmoid(), labels.long(), torch.tensor(at))
        ece = [equal_width_error(*column, BINS) for column in zip(p.T, labels.double().T, strict=True)]
        return {"nll": float(binary_entropy(logits / t, labels)), "ece": percent(fmean(ece)),
                **{name: percent(named[name]) for name in ("f1", "f1_macro")}}  # fmt: skip

    before, after = scores(1.0, model.thresholds), scores(temperature, thresholds)
    shown = dict(zip(model.classes, at_temperature(thresholds, temperature), strict=True))
    return {"temperature": temperature, "thresholds": thresholds}, {
        "thresholds": shown, "before": before, "after": after
    }  # fmt: skip


def check_targets(target_accuracy: float | None, coverage: float | None) -> None:
    """Raises UserError if both are given, or one is not a number in per cent."""
    if target_accuracy is not None and coverage is not None:
        raise UserError("give a target accuracy or a coverage, not both: one threshold cannot meet two")
    for name, value in {"target accuracy": target_accuracy, "coverage": coverage}.items():
        if value is not None and not 1 < value <= 100:
            raise UserError(f"the {name} is in per cent, above 1 and up to 100, such as 95; it is {value}")


@full_fp32()
def _outputs(
    path: Path, model: Classifier, data: str | Path | None, batch_size: int, device: torch.device,
    progress: Callable[[float], None],
) -> Outputs:  # fmt: skip
    """The logits and labels of ``val``. Raises UserError without ``val``."""
    bundle, config = evaluation_data(path, model, data, "val")
    if "val" not in bundle.splits:
        raise UserError(
            f"{data or config.source} has no validation split to fit on; train with --data.val-holdout 0.1, "
            "or name data with a folder val/ by --data"
        )
    loader = make_test_loader(bundle, device, split="val", workers=config.workers, batch_size=batch_size)
    context = Context(device=device, split="val", classes=model.classes, progress=progress)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return context.outputs(model, loader)
