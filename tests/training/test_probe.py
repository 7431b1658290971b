"""Runs that begin with their probe: heads, frozen norms, exact resume, and what a person is told."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mixskd
from mixskd.backbones import build_backbone
from mixskd.config.build import build_experiment
from mixskd.errors import UserError
from mixskd.training import probe as start
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.factory import build_parts
from mixskd.training.probe import probe_at_start
from tests.conftest import write_npz
from tests.processes import Fork, as_module, run_two, signalled
from tests.processes import mixskd as mixskd_command

QUIET = {"progress": False, "precision": "fp32"}


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """``toy.npz`` and ``w.safetensors``: weights of ``wrn_10_1`` whose norms have seen images."""
    write_npz(tmp_path / "toy.npz", train=48, test=12)
    torch.manual_seed(0)
    network = build_backbone("wrn_10_1", 3)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, 3, 8, 8))
    save_file(dict(network.export_state_dict()), tmp_path / "w.safetensors")
    return tmp_path


def settings(at: Path, out: str, method: str = "baseline", **changes: Any) -> dict[str, Any]:
    flat = {"run.epochs": 2, "run.batch_size": 8, **{f"run.{key}": value for key, value in QUIET.items()}, **changes}
    return {"data": str(at / "toy.npz"), "backbone": "wrn_10_1", "method": method, "weights": str(at / "w.safetensors"),
            "out": str(at / out), **flat}  # fmt: skip


def summary(at: Path, out: str, **changes: Any) -> dict[str, Any]:
    return mixskd.train(**settings(at, out, **changes))


@pytest.mark.parametrize("method", ["baseline", "mixskd"])
def test_the_classifiers_begin_as_the_probe(at: Path, method: str) -> None:
    experiment = build_experiment(settings(at, "run", method, **{"optim.head_start": "probe"}))
    parts = build_parts(experiment)
    probe_at_start(parts)
    images, _ = next(iter(parts.score_loaders["test"]))
    backbone = parts.step.method.backbone
    before = build_backbone("wrn_10_1", 3, weights=str(at / "w.safetensors"))
    assert not torch.equal(backbone.head.weight, before.head.weight)
    assert torch.equal(next(backbone.parameters()), next(before.parameters()))
    parts.step.method.eval()
    with torch.no_grad():
        said = parts.step.method.heads(images)
    for logits in said.values():
        torch.testing.assert_close(logits, said["backbone"], rtol=1e-4, atol=1e-4)
    assert parts.probe is not None


def test_a_probe_that_is_only_shown_changes_no_bit_of_the_run(at: Path) -> None:
    shown = summary(at, "shown")
    hidden = summary(at, "hidden", **{"run.probe": "never"})
    assert (at / "shown" / "model.safetensors").read_bytes() == (at / "hidden" / "model.safetensors").read_bytes()
    assert 0 <= shown["probe"]["scores"]["test"]["top1"] <= 100
    assert "probe" not in hidden
    assert json.loads((at / "shown" / "summary.json").read_text())["probe"] == shown["probe"]


def test_runs_without_weights_have_no_probe(at: Path) -> None:
    assert "probe" not in mixskd.train(**{**settings(at, "run"), "weights": None})


def test_the_probe_is_shown_before_the_first_step(at: Path) -> None:
    lines = mixskd.train(**settings(at, "run"), dry_run=True)["plan"]
    (line,) = [line for line in lines if line.startswith("probe: ")]
    assert "% on test without training (" in line
    assert "chosen on 5 folds" in line


def test_a_run_below_its_probe_says_so(at: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mixskd"):
        scores = {"test": {"top1": 40.0}}
        probe = {"classifier": "x", "chosen_by": "val", "scores": {"test": {"top1": 50.0}, "val": {"top1": 10.0}}}
        assert "40.00 % and 50.00 % on test" in (start.below_probe(probe, scores) or "")
        assert start.below_probe(probe, {"test": {"top1": 50.0}}) is None
        assert start.below_probe(None, scores) is None
        found = summary(at, "run", **{"optim.lr": 1e-9, "run.epochs": 1})
    below = found["scores"]["test"]["top1"] < found["probe"]["scores"]["test"]["top1"]
    assert any("below its probe" in note for note in found["notes"]) == below == ("below its probe" in caplog.text)


def test_many_images_are_not_passed_for_a_line(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "MOST", 59)
    found = summary(at, "run")
    assert "probe" not in found
    assert any("no probe was fitted, since 60 images" in note for note in found["notes"])
    assert "probe" in summary(at, "started", **{"optim.head_start": "probe"})


@pytest.mark.parametrize("key", ["head_start", "norms"])
def test_a_start_that_needs_weights_is_refused_without(at: Path, key: str) -> None:
    value = {"head_start": "probe", "norms": "frozen"}[key]
    with pytest.raises(UserError, match=f"optim.{key} {value} needs weights"):
        mixskd.train(**{**settings(at, "run", **{f"optim.{key}": value}), "weights": None})
    assert not (at / "run").exists()


def test_a_classifier_without_a_bias_cannot_begin_as_a_probe(at: Path) -> None:
    with pytest.raises(UserError, match="with a bias"):
        summary(at, "run", method="virtual_softmax", **{"optim.head_start": "probe"})
    assert any("no probe was fitted" in note for note in summary(at, "run", method="virtual_softmax")["notes"])


@pytest.mark.parametrize("method", ["baseline", "mixskd"])
def test_frozen_norms_keep_their_statistics(at: Path, method: str) -> None:
    summary(at, "run", method=method, **{"optim.norms": "frozen", "optim.ema": 0.5})
    before, after = load_file(at / "w.safetensors"), load_file(at / "run" / "model.safetensors")
    running = [key for key in before if "running" in key]
    assert running
    assert all(torch.equal(before[key], after[key]) for key in running)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    state = load_checkpoint(at / "run" / "checkpoint.pt")["method"]
    branches = [key for key in state if "running_mean" in key and key.startswith("branches")]
    assert bool(branches) == (method == "mixskd")
    for key in branches:
        stage, rest = key.removeprefix("branches.alignments.").split(".", 1)
        place, rest = rest.split(".", 1)
        assert torch.equal(state[key], state[f"backbone.stages.{int(stage) + 1 + int(place)}.{rest}"])


def test_norms_train_as_usual(at: Path) -> None:
    summary(at, "run")
    before, after = load_file(at / "w.safetensors"), load_file(at / "run" / "model.safetensors")
    assert not any(torch.equal(before[key], after[key]) for key in before if "running" in key)


@pytest.mark.long
def test_a_killed_run_with_head_start_and_frozen_norms_resumes_to_the_same_bits(at: Path) -> None:
    words = ["train", "--data", str(at / "toy.npz"), "--backbone", "wrn_10_1", "--weights", str(at / "w.safetensors"),
             "--method", "mixskd", "--batch-size", "8", "--epochs", "2", "--optim.head-start", "probe", "--optim.norms",
             "frozen", "--optim.ema", "0.9", "--run.checkpoint-every-steps", "5"]  # fmt: skip
    whole = mixskd_command(at / "whole.log", *words, "--out", str(at / "whole"))
    end = Fork(at / "killed.log", signalled, 8, signal.SIGKILL, *words, "--out", str(at / "killed"))
    assert end.wait() == -signal.SIGKILL, end.said
    whole.succeed()
    mixskd_command(at / "again.log", *words, "--out", str(at / "killed"), "--resume").succeed()
    for name in ("model.safetensors", "metrics.csv"):
        assert (at / "whole" / name).read_bytes() == (at / "killed" / name).read_bytes()
    probes = [json.loads((at / out / "summary.json").read_text())["probe"] for out in ("whole", "killed")]
    assert probes[0] == probes[1]


@pytest.mark.long
def test_two_processes_begin_as_one(at: Path) -> None:
    words = ["train", "--data", str(at / "toy.npz"), "--backbone", "wrn_10_1", "--weights", str(at / "w.safetensors"),
             "--method", "baseline", "--batch-size", "8", "--epochs", "1", "--optim.head-start", "probe",
             "--optim.norms", "frozen", "--run.precision", "fp32"]  # fmt: skip
    mixskd_command(at / "one.log", *words, "--out", str(at / "one")).succeed()
    run_two(at, as_module, "mixskd", *words, "--out", str(at / "two"))
    one, two = (load_file(at / out / "model.safetensors") for out in ("one", "two"))
    for key, x in one.items():  # frozen norms make the images of a batch independent of each other
        np.testing.assert_allclose(x.numpy(), two[key].numpy(), rtol=0, atol=1e-4, err_msg=key)
