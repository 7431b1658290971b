"""Counts the functions of mixskd that a value crosses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import mixskd

SOURCE = str(Path(mixskd.__file__).parent)


class Crossings:
    """The ``names`` of the functions that are given a value within the ``with`` block, in order.

    ``holds`` tests whether a value is or contains the one that is followed. With ``returned``, functions that return it
    count too. Nothing is counted once the function ``last`` is among the names.
    """

    def __init__(self, holds: Callable[[Any], bool], *, returned: bool = False, last: str = "") -> None:
        self.holds, self.returned, self.last = holds, returned, last
        self.names: list[str] = []

    def __enter__(self) -> Crossings:
        self.before = sys.getprofile()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)

    def _profile(self, frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(SOURCE) or code.co_qualname in self.names or self.last in self.names:
            return
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        values = [frame.f_locals.get(name) for name in code.co_varnames[:count]] if event == "call" else []
        values += [result] if event == "return" and self.returned else []
        if any(map(self.holds, values)):
            self.names.append(code.co_qualname)
