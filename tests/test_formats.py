"""Files of every published format are read by this version: a stored set of each."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch

import mixskd
from mixskd.artifacts.model_file import FORMAT as MODEL
from mixskd.artifacts.model_file import OLDER as OLDER_MODELS
from mixskd.artifacts.model_file import store_calibration
from mixskd.training.checkpoint import FORMAT as CHECKPOINT
from mixskd.training.checkpoint import OLDER as OLDER_CHECKPOINTS
from tests.bad_inputs import described

STORED = Path(__file__).parent / "formats"
SETS = sorted(STORED.glob("run-*.tar.xz"))


@pytest.fixture(params=SETS, ids=lambda path: path.name.split(".")[0])
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``finished`` (without its checkpoint), ``unfinished``, and their data."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_format_is_stored() -> None:
    numbers = {path.name.removeprefix("run-").removesuffix(".tar.xz") for path in SETS}
    for name in (MODEL, *OLDER_MODELS, CHECKPOINT, *OLDER_CHECKPOINTS):
        assert name.rsplit("-", 1)[1] in numbers


def test_a_model_file_is_read(stored: Path) -> None:
    model = mixskd.load("finished")
    assert model.classes == ("0", "1", "2")
    assert (model.name, model.image_size) == ("wrn_10_1", 8)
    weight = model.export_state_dict()["fc.weight"]
    assert torch.allclose(weight, torch.arange(weight.numel()).reshape(weight.shape).remainder(7) / 64)
    assert mixskd.evaluate("finished")["images"] == 6


def test_a_model_file_is_calibrated(stored: Path) -> None:
    before = mixskd.load("finished")
    store_calibration("finished", 1.5, threshold=0.5)
    after = mixskd.load("finished")
    assert (before.temperature, before.threshold, after.temperature, after.threshold) == (None, None, 1.5, 0.5)
    assert described(Path("finished/model.safetensors"))["format"] == MODEL
    for key, value in before.export_state_dict().items():
        assert torch.equal(after.export_state_dict()[key], value)


def test_a_run_goes_on(stored: Path) -> None:
    summary = mixskd.train(out="unfinished", resume=True)
    assert summary["updates"] == 6
    first, second = (Path(run, "metrics.csv").read_text().splitlines() for run in ("finished", "unfinished"))
    assert [row.split(",")[:2] for row in first] == [row.split(",")[:2] for row in second]
    ours, theirs = (mixskd.load(run).export_state_dict() for run in ("unfinished", "finished"))
    for key, value in theirs.items():
        assert torch.allclose(ours[key], value), key
