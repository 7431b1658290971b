"""Text files that list names."""

from __future__ import annotations

from pathlib import Path

from mixskd.errors import UserError


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty, stripped. Raises UserError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    return [line.strip() for line in lines if line.strip()]
