"""The README's first command does what it says; what else it shows is run by test_docs.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import mixskd
from tests.processes import mixskd as mixskd_command


@pytest.mark.long
@pytest.mark.timeout(1800)  # a minute; on a machine with much else to do, many
def test_the_default_run_reaches_98_per_cent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mixskd_command(tmp_path / "log", "train", "--out", "run").succeed()
    assert mixskd.evaluate("run")["top1"] >= 98
