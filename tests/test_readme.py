"""The README's Python examples run, and the default command does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mixskd

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=120)


def test_the_default_run_reaches_98_per_cent(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "mixskd", "train", "--out", "run"], cwd=tmp_path, check=True, timeout=280)
    print(f"{time.monotonic() - started:.0f} s")
    assert mixskd.evaluate(tmp_path / "run")["top1"] >= 98
