"""Print lines for a person on a terminal; control characters are escaped."""

import logging
import os
import sys
from typing import Any

from mixskd.errors.text import safe


def show(*lines: object, error: bool = False) -> None:
    """Print each of ``lines`` on stdout, or on stderr if ``error``; what would act on a terminal is spelt out."""
    for line in lines:
        print(safe(line, "terminal"), file=sys.stderr if error else sys.stdout)


def console(*, error: bool = False) -> Any:
    """A console of rich on stdout, or on stderr if ``error``; in a file or a pipe it folds no line."""
    from rich.console import Console

    found = Console(stderr=error, highlight=False)
    if not (found.is_terminal or found.is_jupyter or "COLUMNS" in os.environ):
        found.width = 10_000
    return found


def warn(line: object) -> None:
    """Log ``line`` as a warning of ``mixskd``, which is on stderr by default; it is made safe as in :func:`show`."""
    logging.getLogger("mixskd").warning("%s", safe(line, "terminal"))
