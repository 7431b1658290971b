"""Two gloo processes against one, for a detector and a segmentation network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mixskd.backbones import BACKBONES
from mixskd.transfer.evaluating import evaluate
from tests.processes import Fork, run_two
from tests.transfer import two_processes
from tests.transfer.detection.support import tiny_backbone
from tests.transfer.detection.support import write as write_boxes
from tests.transfer.segmentation.support import write as write_masks
from tests.transfer.two_processes import SMALL

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves, and two."""
    root = tmp_path_factory.mktemp("two")
    write_boxes(root / "cascade_rcnn")
    write_masks(root / "deeplabv3", (32, 32))
    listing = root / "cascade_rcnn" / "val.json"  # three images of val, which two processes cannot divide
    values = json.loads(listing.read_text())
    listing.write_text(json.dumps({**values, "images": values["images"][:3]}))
    for kind in ("images", "masks"):
        (root / "deeplabv3" / kind / "val" / "3.png").unlink()
    alone = Fork(root / "log", two_processes.main, root)
    run_two(root, two_processes.main, root)
    alone.succeed()
    return root


@pytest.mark.parametrize("name", SMALL)
def test_two_processes_match_the_steps_of_one(name: str, root: Path) -> None:
    (before, one), (_, two) = (torch.load(root / f"states{n}.pt", weights_only=True)[name] for n in (1, 2))
    assert one.keys() == two.keys()
    moved = {key: (weights - before[key]).abs().max() for key, weights in one.items() if weights.is_floating_point()}
    assert max(moved.values()) > 0.01
    for key, weights in one.items():  # networks of fp32; a mean over the wrong images differs by far more
        assert torch.allclose(weights, two[key], rtol=0, atol=2e-5), key


@pytest.mark.parametrize("name", SMALL)
def test_two_processes_score_an_odd_number_of_images_once(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", lambda classes: tiny_backbone())
    summary = json.loads((root / f"run_{name}" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["updates"] == 2
    scores = summary["scores"]["val"]
    alone = evaluate(root / f"run_{name}")
    assert {key: alone[key] for key in scores} == pytest.approx(scores, abs=1e-4)
    if name == "deeplabv3":
        assert scores["miou"] > 0
