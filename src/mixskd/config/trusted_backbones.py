"""Backbones from outside timm's own lists (``timm/hf-hub:``, ``timm/local-dir:``): only a person may name one.

A person names one on the command line or as an argument of a Python function. A name that comes from a file (a
configuration, a grid, the config.yaml of a run, a model file) is not followed. Nothing of torch is imported here.
"""

import os
from collections.abc import Iterable
from typing import Any

from mixskd.errors import UserError
from mixskd.errors.terminal import show

VARIABLE = "MIXSKD_TYPED_BACKBONES"  # what was typed, for the processes that this one starts, a line each
_announced: set[str] = set()


def is_elsewhere(name: str) -> bool:
    """Whether timm would look for the model outside its own lists."""
    return name.startswith("timm/") and ":" in name


def remember_typed(*values: Any) -> None:
    """Remember that a person named the backbones ``values``: text, with commas between several, or lists of such."""
    for value in values:
        if isinstance(value, str):
            names = {name.strip() for name in value.split(",")}
            typed = _typed() | {name for name in names if is_elsewhere(name)}
            if typed:
                os.environ[VARIABLE] = "\n".join(sorted(typed))
        elif isinstance(value, Iterable):
            remember_typed(*value)


def check_typed(name: str) -> None:
    """Raises UserError for a backbone from outside timm's lists that no person named."""
    if is_elsewhere(name) and name not in _typed():
        raise UserError(
            f"a file names the backbone {name!r}, which would be fetched from elsewhere; only a person may name such "
            f"a backbone: give it yourself with --backbone if you trust its source"
        )


def announce(name: str) -> None:
    """Print once, on stderr, that a backbone from outside timm's lists is about to be fetched."""
    if not is_elsewhere(name) or name in _announced or os.environ.get("RANK", "0") != "0":
        return
    _announced.add(name)
    what = "is read from a folder" if name.startswith("timm/local-dir:") else "is downloaded from the Hugging Face hub"
    show(f"mixskd: the backbone {name} {what}", error=True)


def _typed() -> set[str]:
    return set(filter(None, os.environ.get(VARIABLE, "").split("\n")))
