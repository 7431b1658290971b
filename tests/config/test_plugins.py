"""Methods and backbones of other installed packages, found by their entry points."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixskd.backbones import BACKBONES, build_backbone
from mixskd.cli.main import main
from mixskd.config.plugins import has_plugins, load_plugins
from mixskd.methods import METHODS

MODULE = """
from functools import partial
from mixskd.backbones import BACKBONES
from mixskd.backbones.resnet import wide_resnet
from mixskd.methods import METHODS
from mixskd.methods.baseline import Baseline

class Plugged(Baseline):
    '''Plain training by another name.'''

METHODS["plugged"] = Plugged
BACKBONES["plugged_net"] = partial(wide_resnet, depth=10, width=1)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The source of an installed package's module, still empty."""
    about = tmp_path / "plugged-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mixskd.plugins]\nit = plugged_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_plugins.cache_clear()
    yield tmp_path / "plugged_module.py"
    forget()


def forget() -> None:
    """As in a process that has not met the plugin."""
    sys.modules.pop("plugged_module", None)
    METHODS.pop("plugged", None)
    BACKBONES.pop("plugged_net", None)
    load_plugins.cache_clear()


def test_a_plugin_is_named_like_any_other(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed.write_text(MODULE)
    assert has_plugins()
    assert build_backbone("plugged_net", 10).num_classes == 10
    assert main(["list", "methods", "--json"]) == 0
    row = {"method": "plugged", "in short": "Plain training by another name.", "cost": "-"}
    assert row in json.loads(capsys.readouterr().out)
    small = ["--backbone", "plugged_net", "--data.per_class", "2", "--epochs", "1", "--optim.warmup_epochs", "0"]
    assert main(["train", "--method", "plugged", *small, "--batch-size", "20", "--out", "run"]) == 0
    forget()
    assert main(["evaluate", "run", "--json"]) == 0
    forget()
    assert main(["compare", "--table", "."]) == 0


def test_the_run_of_a_plugin_that_is_gone(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed.write_text("")
    folder = Path("of-another-machine")
    folder.mkdir()
    (folder / "config.yaml").write_text("method: {name: plugged}\nbackbone: wrn_10_1\n")
    cost = dict.fromkeys(("updates", "images", "images_per_second", "seconds", "threads", "parameters"), 1)
    scores = {"last": {"top1": 1.0, "epoch": 1}, "best_on_test": {"top1": 1.0, "epoch": 1}}
    summary = {**scores, **cost, "device": "cpu", "precision": "fp32"}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert main(["compare", "--table", "."]) == 2
    assert "unknown method 'plugged'" in capsys.readouterr().err


def test_a_broken_plugin_is_named(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed.write_text("import nowhere_to_be_found\n")
    assert main(["train", "--print-config"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the plugin plugged_module of the package plugged does not load (ModuleNotFoundError" in error
