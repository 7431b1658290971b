"""The cross-entropy of a run: weights of classes and logit adjustment from the labels of its training images."""

import numpy as np
import torch

from mixskd.config.optim import LabelLoss
from mixskd.data import DataBundle
from mixskd.errors import UserError, unknown
from mixskd.methods.parts.criteria import BinaryCrossEntropy, CrossEntropy

IMBALANCED = 10.0  # times the images of the smallest class


def criterion_of(loss: LabelLoss, data: DataBundle) -> CrossEntropy:
    """What every method minimises on the labels of ``data``. Raises UserError for settings that do not fit them."""
    if loss.asymmetric and not data.several:
        raise UserError("optim.asymmetric is for several labels an image; leave it out")
    if len(loss.asymmetric) not in (0, 3) or loss.asymmetric[2:] >= (1,):
        raise UserError(f"optim.asymmetric must be three numbers, the last below 1, not {list(loss.asymmetric)}")
    total = len(data.train)
    present = np.asarray(data.counts, dtype=np.float64)
    absent = np.maximum(total - present, 1)  # a class that every image has
    weights = adjustment = None
    if loss.class_weights != "none":
        found = class_weights(loss, data, present, absent)
        weights = torch.from_numpy(found).float()
    if loss.logit_adjustment > 0:
        odds = np.log(present / (absent if data.several else total))
        adjustment = torch.from_numpy(loss.logit_adjustment * odds).float()
    if data.several:
        return BinaryCrossEntropy(weights, adjustment, loss.asymmetric)
    return CrossEntropy(weights, adjustment)


def class_weights(loss: LabelLoss, data: DataBundle, present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """A weight for each class (``C``) from the numbers of images that have it and that lack it, see the setting.

    Raises UserError for a weight of an unknown class.
    """
    if isinstance(given := loss.class_weights, dict):
        if strange := next((name for name in given if name not in data.classes), None):
            raise unknown("class in optim.class_weights", strange, data.classes)
        return np.array([given.get(name, 1.0) for name in data.classes])
    if given == "effective" and loss.effective_beta > 0:  # (1 - beta^n) / (1 - beta); the denominator is of no effect
        present_weight, absent_weight = (-np.expm1(n * np.log(loss.effective_beta)) for n in (present, absent))
    elif given == "effective":
        present_weight = absent_weight = np.ones_like(present)
    else:
        present_weight, absent_weight = present, absent
    if data.several:
        return absent_weight / present_weight
    return present.sum() / (present / present_weight).sum() / present_weight  # the mean over the images is 1


def imbalance_note(loss: LabelLoss, balance: float, data: DataBundle) -> list[str]:
    """A line for a person if the classes differ much in size, and no setting regards it."""
    ratio = data.counts.max() / data.counts.min()
    regarded = balance > 0 or loss.class_weights != "none" or loss.logit_adjustment > 0
    if ratio < IMBALANCED or regarded:
        return []
    draw = "" if data.several else "--data.balance 0.5, "
    return [
        f"the largest class has {ratio:.0f} times the images of the smallest; see {draw}--optim.class-weights balanced "
        "and --optim.logit-adjustment 1, and docs/imbalance.md which to take"
    ]
