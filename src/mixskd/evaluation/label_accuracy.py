"""What the suite ``accuracy`` measures where an image may have several labels."""

from typing import Any

import torch

from mixskd.evaluation.base import Context, Evaluator, Outputs, percent, report
from mixskd.tasks.metrics import label_scores


def label_accuracy(suite: Evaluator, outputs: Outputs, context: Context) -> dict[str, Any]:
    """``map``, ``f1``, ``f1_macro``, and of each class average precision, precision, recall and F1, all in per cent.

    A class is named where its probability is not below its threshold. A class that no image has takes no part in means.
    """
    p, labels = outputs.logits.double().sigmoid(), outputs.labels.long()
    thresholds = torch.tensor(context.thresholds, dtype=torch.float64)
    found, named = label_scores(p, labels, thresholds), p >= thresholds
    hits, images = (named & (labels > 0)).sum(0), labels.sum(0)
    columns = {
        "ap": found["ap"], "f1": found["class_f1"],
        "precision": hits / named.sum(0).clamp(min=1), "recall": hits / images.clamp(min=1),
    }  # fmt: skip
    classes = [
        {"name": context.class_name(i), "images": int(images[i]), "threshold": context.thresholds[i]}
        | {name: percent(values[i].nan_to_num()) for name, values in columns.items()}
        for i in range(len(images))
    ]
    scores: dict[str, Any] = {name: percent(found[name]) for name in ("map", "f1", "f1_macro")}
    return report(
        suite, context, images=len(labels), headline=("map", scores["map"]),
        protocol="mean over the classes of the average precision; F1 at the thresholds of the model file", **scores,
        classes=classes,
    )  # fmt: skip
