"""The name of :mod:`mixskd.config.types` in version 0.1, which plugins import."""

from mixskd.config.types import *  # noqa: F403
