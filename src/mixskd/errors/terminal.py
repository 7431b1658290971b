"""The one place that prints for a person: every line is made safe for a terminal."""

from __future__ import annotations

import sys

from mixskd.errors.text import safe


def show(*lines: object, error: bool = False) -> None:
    """Print each of ``lines`` on stdout, or on stderr if ``error``; what would act on a terminal is spelt out."""
    for line in lines:
        print(safe(line, "terminal"), file=sys.stderr if error else sys.stdout)
