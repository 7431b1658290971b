"""The package has types for those who import it."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path


def test_types_are_shipped_and_a_users_script_is_examined_by_mypy() -> None:
    assert (files("mixskd") / "py.typed").is_file()
    root = Path(__file__).parent.parent
    examined = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]
    assert examined == ["src", "tests/user_script.py"]
    assert all((root / path).exists() for path in examined)
