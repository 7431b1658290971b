"""What a label is: a class of an image, boxes in it, or a class of every pixel."""

from mixskd.tasks.base import Task
from mixskd.tasks.classification import Classification

__all__ = ["Classification", "Task"]
