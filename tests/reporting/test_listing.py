"""The models of a library by a pattern."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mixskd.cli.main import main
from mixskd.reporting import listing


def test_pattern_lists_models_of_a_library(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["list", "backbones", "torchvision/squeezenet*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {
        "backbone": "torchvision/squeezenet1_1", "image size": 224, "parameters": 1_235_496,
        "stages": "none: methods without branches",
    }  # fmt: skip
    monkeypatch.setattr(listing, "LIBRARY_ROWS", 1)
    assert main(["list", "backbones", "timm/test_res*"]) == 0
    assert "timm/test_resnet" in capsys.readouterr().out
    rows, more = listing.library_backbones("timm/test_v*")
    assert (len(rows), rows[0]["stages"], more) == (1, "4", 4)


@pytest.mark.parametrize("words", [["backbones", "timm/nothing_*"], ["backbones", "resnet*"], ["methods", "mix*"]])
def test_pattern_without_a_match_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_stored_rows_are_those_of_the_classes() -> None:
    stored = Path(listing.__file__).with_name("listings.json").read_text(encoding="utf-8")
    assert stored == listing.to_store(), "run python -m mixskd.reporting.listing"


def test_lists_need_no_torch() -> None:
    code = (
        "import sys; from mixskd.cli.main import main\n"
        "for kind in 'methods backbones datasets recipes grids suites'.split(): assert main(['list', kind]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
