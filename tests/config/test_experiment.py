"""Experiments of earlier versions."""

from __future__ import annotations

import pytest

from mixskd.config.build import build_experiment
from mixskd.errors import UserError


@pytest.mark.parametrize("value", [False, True])
def test_removed_setting_of_an_earlier_version_is_ignored(value: bool) -> None:
    assert build_experiment({"run": {"seed": 3, "branch_streams": value}}) == build_experiment({"run": {"seed": 3}})
    with pytest.raises(UserError, match="branch_stream"):
        build_experiment({"run": {"branch_stream": value}})


def test_out_of_a_file_may_look_like_a_number() -> None:
    assert build_experiment({"out": 5}, resume=True).out == "5"
