"""``run.batch_size auto`` halves the batch until a step fits the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import mixskd
from mixskd.errors import UserError
from mixskd.training.step import TrainStep
from tests.conftest import write_npz

AUTO: dict[str, Any] = {"epochs": 1, "batch_size": "auto", "progress": False}


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_npz(tmp_path / "toy.npz", train=40))


def limit(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """Let a step of more images end as on a GPU whose memory is full."""
    update = TrainStep._update

    def limited(step: TrainStep, batch: Any) -> Any:
        if len(batch.images) > images:
            raise RuntimeError("CUDA out of memory")
        return update(step, batch)

    monkeypatch.setattr(TrainStep, "_update", limited)
    monkeypatch.setattr("mixskd.training.fitting.gc.collect", lambda: 0)  # a second among all that tests import


def test_batch_is_halved_and_written_down(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 8)
    out, settings = tmp_path / "run", {"data": data, "backbone": "wrn_10_1", "method": "baseline"}
    plan = mixskd.train(out=str(out), run=AUTO, dry_run=True, **settings)["plan"]
    assert "run.batch_size auto: 8 images an update fit the memory" in plan
    summary = mixskd.train(out=str(out), run=AUTO, **settings)
    assert summary["updates"] == 5
    assert summary["peak_memory_bytes"] > 2**20
    assert yaml.safe_load((out / "config.yaml").read_text())["run"]["batch_size"] == 8
    other = mixskd.train(out=str(tmp_path / "other"), run={**AUTO, "batch_size": 8}, **settings)
    assert Path(other["out"], "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    limit(monkeypatch, 4)  # a resumed run keeps its number
    (out / "summary.json").unlink()
    assert mixskd.train(out=str(out), run=AUTO, resume=True, **settings)["updates"] == 5


def test_nothing_fits(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 0)
    with pytest.raises(UserError, match=r"run\.batch_size auto found no batch"):
        mixskd.train(data=data, backbone="wrn_10_1", method="baseline", out=str(tmp_path / "run"), run=AUTO)
    assert not (tmp_path / "run").exists()


def test_verbs_that_count_need_a_number(data: str) -> None:
    with pytest.raises(UserError, match="give a number of images here"):
        mixskd.benchmark(data="synthetic", backbone="wrn_10_1", run={"batch_size": "auto"})
    with pytest.raises(UserError, match=r"run\.batch_size must be from 1 to 1,000,000 or auto, not 'much'"):
        mixskd.train(data=data, run={"batch_size": "much"})
