"""The task of a classifier: one label an image, or several."""

from typing import Any

from mixskd.tasks.base import LabelTask
from mixskd.tasks.classification import Classification
from mixskd.tasks.multilabel import MultiLabel


def task_of(model: Any) -> LabelTask:
    """The task of a classifier as a model file holds it: its ``task``, ``classes`` and ``thresholds``."""
    return label_task(len(model.classes), several=model.task == MultiLabel.name, thresholds=model.thresholds)


def label_task(classes: int, *, several: bool, thresholds: Any = ()) -> LabelTask:
    """The task for ``classes`` classes, of which an image has one, or ``several``."""
    return MultiLabel(classes, thresholds or ()) if several else Classification(classes)
