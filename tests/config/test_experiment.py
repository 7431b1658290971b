"""Experiments of earlier versions."""

from __future__ import annotations

import pytest

from mixskd.config import from_dict
from mixskd.errors import UserError


@pytest.mark.parametrize("value", [False, True])
def test_removed_setting_of_an_earlier_version_is_ignored(value: bool) -> None:
    assert from_dict({"run": {"seed": 3, "branch_streams": value}}) == from_dict({"run": {"seed": 3}})
    with pytest.raises(UserError, match="branch_stream"):
        from_dict({"run": {"branch_stream": value}})
