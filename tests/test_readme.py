"""The README's first command does what it says; what else it shows is run by test_docs.py."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import mixskd


@pytest.mark.long
@pytest.mark.timeout(1800)  # a minute; on a machine with much else to do, many
def test_the_default_run_reaches_98_per_cent(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "mixskd", "train", "--out", "run"], cwd=tmp_path, check=True)
    print(f"{time.monotonic() - started:.0f} s")
    assert mixskd.evaluate(tmp_path / "run")["top1"] >= 98
