"""The engine that runs an experiment."""

from mixskd.training.loop import train

__all__ = ["train"]
