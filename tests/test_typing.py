"""The package has types for those who import it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

SCRIPT = """
import torch
import mixskd

backbone = mixskd.build_backbone("wrn_10_1", 5)
summary = mixskd.train(data="digits", backbone="wrn_10_1", method={"name": "mixup"}, out="run", run={"epochs": 1})
classifier = mixskd.load(str(summary["out"]))
logits = classifier(torch.zeros(1, 3, 8, 8))
names: tuple[str, ...] = classifier.classes
mixskd.report(["run"], "report.html")
"""


def test_a_script_that_imports_mixskd_passes_mypy(tmp_path: Path) -> None:
    assert (files("mixskd") / "py.typed").is_file()
    (tmp_path / "script.py").write_text(SCRIPT)
    source = str(Path(str(files("mixskd"))).parent)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "script.py")],
        env={**os.environ, "MYPYPATH": source}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
