"""A temperature and a threshold for ``predict``, fitted on the validation split and kept in the model file."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixskd.artifacts.model_file import Classifier, load_model, store_calibration
from mixskd.data import make_test_loader
from mixskd.errors import UserError, check_positive
from mixskd.evaluation.base import Context, Outputs, percent
from mixskd.evaluation.split_scores import evaluation_data
from mixskd.evaluation.suites.calibration import calibration
from mixskd.runtime.precision import choose_device, full_fp32
from mixskd.tasks.temperature_scaling import best_temperature
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
    """Fit a temperature and a threshold on ``val``, and store both in the model file at ``path``, or in that run.

    The temperature minimises the mean negative log-likelihood (Guo et al., 2017). If no image of ``val`` is
    misclassified it would go to 0, so it stays 1 then. The threshold is the lowest one at which the accuracy of the
    accepted images is at least ``target_accuracy`` (per cent; 95 if neither is given), or the highest one that accepts
    at least the share ``coverage`` (per cent). An image is accepted if its largest probability is not below it.

    Returns ``images``, ``temperature``, ``threshold``, ``before`` and ``after`` (``nll`` in nats and ``ece`` in per
    cent on ``val``, with 15 bins), ``top1`` of all images, ``accepted`` (their share in per cent), ``accepted_images``
    and ``accepted_top1``. Only :func:`mixskd.predict` uses what is stored. Raises UserError without ``val``, and if no
    threshold reaches ``target_accuracy``; the file then stays as it was.
    """
    check_positive(batch_size=batch_size)
    check_targets(target_accuracy, coverage)
    place = Path(path)
    model = load_model(place)
    if model.task == "multilabel":
        raise UserError(
            f"calibrate is for one label an image; the classes of {path}, of which an image may have several, have "
            "thresholds that were fitted on val when it was trained"
        )
    with run_lock(place) if place.is_dir() else nullcontext():
        outputs = _outputs(place, model, data, batch_size, choose_device(device), progress)
        right = outputs.predictions == outputs.labels
        temperature = 1.0 if right.all() else best_temperature(outputs.logits, outputs.labels)
        confidence = (outputs.logits.double() / temperature).softmax(1).max(1).values
        if coverage is not None:
            threshold = threshold_for_coverage(confidence, coverage)
        else:
            threshold = threshold_for_accuracy(confidence, right, target_accuracy or TARGET_ACCURACY)
        accepted = confidence >= threshold
        before, after = (calibration(outputs.logits.double() / t, outputs.labels, BINS) for t in (1.0, temperature))
        store_calibration(place, temperature, threshold)
        return {
            "images": len(right),
            "temperature": temperature,
            "threshold": threshold,
            "before": {name: before[name] for name in ("nll", "ece")},
            "after": {name: after[name] for name in ("nll", "ece")},
            "top1": percent(right.double().mean()),
            "accepted": percent(accepted.double().mean()),
            "accepted_images": int(accepted.sum()),
            "accepted_top1": percent(right[accepted].double().mean()),
        }


def check_targets(target_accuracy: float | None, coverage: float | None) -> None:
    """Raises UserError if both are given, or one is not a number in per cent."""
    if target_accuracy is not None and coverage is not None:
        raise UserError("give a target accuracy or a coverage, not both: one threshold cannot meet two")
    for name, value in {"target accuracy": target_accuracy, "coverage": coverage}.items():
        if value is not None and not 1 < value <= 100:
            raise UserError(f"the {name} is in per cent, above 1 and up to 100, such as 95; it is {value}")


def threshold_for_accuracy(confidence: Tensor, right: Tensor, target: float) -> float:
    """The lowest threshold at which at least ``target`` per cent of the accepted images are ``right`` (``N`` each).

    It is halfway between two confidences, and 0 if all images are accepted. Raises UserError if no threshold
    reaches the target.
    """
    ordered, order = confidence.double().sort(descending=True, stable=True)
    hits = right[order].long().cumsum(0)
    numbers = torch.arange(1, len(hits) + 1)
    reached = (100 * hits >= target * numbers) & _ends(ordered)
    if not reached.any():
        best = percent((hits / numbers)[_ends(ordered)].max())
        raise UserError(
            f"no threshold reaches an accuracy of {target:g} % on val; the highest that one reaches is {best:.2f} %, "
            "so give a lower --target-accuracy, or --coverage"
        )
    return _below(ordered, int(reached.nonzero()[-1]))


def threshold_for_coverage(confidence: Tensor, coverage: float) -> float:
    """The highest threshold that accepts at least ``coverage`` per cent of the images, between two confidences."""
    ordered = confidence.double().sort(descending=True).values
    least = max(math.ceil(coverage * len(ordered) / 100 - 1e-9), 1)
    last = _ends(ordered).nonzero()[:, 0]
    return _below(ordered, int(last[last >= least - 1][0]))


def _ends(ordered: Tensor) -> Tensor:
    """Whether the next of the decreasing values is smaller; a threshold cannot separate equal values."""
    return torch.cat([ordered[1:] < ordered[:-1], torch.ones(1, dtype=torch.bool)])


def _below(ordered: Tensor, last: int) -> float:
    """A threshold that accepts the first of the decreasing values up to index ``last``."""
    if last == len(ordered) - 1:
        return 0.0
    accepted, refused = ordered[last].item(), ordered[last + 1].item()
    middle = (accepted + refused) / 2
    return middle if middle > refused else accepted  # adjacent floats have no middle


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
