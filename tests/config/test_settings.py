"""Every setting is explained, in --help and on its page, from one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixskd.config import known_keys
from mixskd.config.conversion import convert
from mixskd.config.settings import GROUPS, help_text, page, settings_of

ROOT = Path(__file__).parents[2]


def test_every_setting_has_a_meaning() -> None:
    settings = [setting for group in GROUPS for setting in settings_of(group)]
    assert {setting.key for setting in settings} == set(known_keys()) - {"method.name"}
    for setting in settings:
        assert setting.meaning.endswith("."), setting.key
        assert setting.flag in help_text()


def test_the_page_is_made_from_the_code() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page(), "run python -m mixskd.config.settings"


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("optim.lr", "number above 0", "0.1"), ("optim.milestones", "a list of whole numbers", "105,155"),
        ("data.root", "text or none", "none"), ("run.progress", "true or false", "true"),
    ],
)  # fmt: skip
def test_types_and_defaults_in_words(key: str, kind: str, default: str) -> None:
    (setting,) = (setting for setting in settings_of(key.split(".")[0]) if setting.key == key)
    assert setting.type.startswith(kind)
    assert setting.default in (default, "none")


def test_a_list_may_have_blanks_after_its_commas() -> None:
    assert convert("[32, 64]", tuple[int, ...], "short") == (32, 64)
    assert convert("0.5, 1", tuple[float, ...], "scales") == (0.5, 1.0)
