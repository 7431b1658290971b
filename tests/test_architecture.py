"""The page on the architecture names rooms, files and functions that are there."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mixskd"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|]+ \| `([\w/.]+)` \| `(\w+)` \|$", PAGE, flags=re.MULTILINE)


def test_page_answers_twelve_questions_or_more() -> None:
    assert len(ROWS) >= 12


@pytest.mark.parametrize(("file", "name"), ROWS)
def test_file_holds_the_name(file: str, name: str) -> None:
    assert (SOURCE / file).is_file()
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert hasattr(importlib.import_module(f"mixskd.{module}"), name)


def test_picture_has_every_room_in_the_order_of_the_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [sorted(layer.split(" | ")) for layer in contract["layers"]]
    picture = PAGE.split("```")[1]
    rows = [
        sorted(re.findall(r"(\w+)(?:/|\.py)(?=\s|,)", line.split("  ")[0] + " " + line[:33]))
        for line in picture.splitlines()
    ]
    drawn = [sorted(set(row) - {"__main__"}) for row in rows if row]
    assert drawn == layers
    assert {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"} == {
        room for layer in layers for room in layer if room != "api"
    }


@pytest.mark.parametrize("path", re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", PAGE))
def test_path_in_the_text_exists(path: str) -> None:
    assert (SOURCE / path).exists() or (ROOT / path).exists()
