"""A wrong name of a method is refused before torch is imported, unless another package may have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mixskd import UserError
from mixskd.config import registry
from mixskd.config.registry import check_method
from mixskd.methods import METHODS

WITHOUT_TORCH = """
import sys, mixskd.cli.main
commands = [["train", "--method", "mixkd"], ["train", "--method.name", "mixkd"], ["train", "--config", "mine.yaml"],
            ["benchmark", "--method", "mixkd"], ["compare", "--methods", "baseline,mixkd[alpha=1]"],
            ["detect", "train", "--method", "faster_rcn"]]
for command in commands:
    assert mixskd.cli.main.main(command) == 2, command
assert 'torch' not in sys.modules
"""


def test_a_wrong_name_is_refused_without_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("method: mixkd\n")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert ["did you mean 'mixskd'?; choose from" in line for line in lines] == [True] * 5 + [False]
    assert lines[-1].endswith("did you mean 'faster_rcnn'?; choose from cascade_rcnn, faster_rcnn")


@pytest.mark.parametrize("installed", [False, True])
def test_a_plugin_may_have_the_name(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "has_plugins", lambda: installed)
    for name in (*METHODS, "deeplabv3", None):
        check_method(name)
    if installed:
        check_method("mixkd")
    else:
        with pytest.raises(UserError, match="did you mean 'mixskd'"):
            check_method("mixkd")
