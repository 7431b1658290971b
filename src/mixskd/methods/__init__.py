"""The training objectives, by name: one file a method. Each is imported at its first use."""

from typing import Any

from mixskd.config.registry import METHODS as METHODS
from mixskd.config.registry import method_class as method_class


def __getattr__(name: str) -> Any:
    """``Method``, and every method by the name of its class."""
    if name == "Method":
        from mixskd.methods.base import Method

        return Method
    if name[:1].isupper() and (found := METHODS.class_called(name)) is not None:
        return found
    raise AttributeError(f"module 'mixskd.methods' has no attribute {name!r}")
