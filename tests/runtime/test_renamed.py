"""Programs that import a module under its name of version 0.1 go on working."""

from __future__ import annotations

import importlib
import sys

import pytest

from mixskd.runtime.renamed import RENAMED


@pytest.mark.parametrize("old", RENAMED)
def test_renamed_module_has_its_contents(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"is now {RENAMED[old]}"):
        module = importlib.import_module(old)
    present = importlib.import_module(RENAMED[old])
    public = {name: value for name, value in vars(present).items() if not name.startswith("__")}
    assert public
    assert {name: vars(module)[name] for name in public} == public
