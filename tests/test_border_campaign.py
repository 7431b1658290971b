"""A few rounds of the campaign of signals, damaged files and wrong arguments; all of it is in benchmarks/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "border_campaign.py"


@pytest.mark.slow
def test_campaign_finds_nothing(tmp_path: Path) -> None:
    words = ["--scale", "0.05", "--seed", "7", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["cases"] > 100
    assert not counts["faults by kind"]
