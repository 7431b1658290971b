"""Tf-KD: the virtual teacher, and the frozen one that a baseline run left."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

import mixskd
from mixskd import TfKDReg, TfKDSelf, UserError
from mixskd.training.checkpoint import load_checkpoint
from tests.conftest import make_toy
from tests.methods.reference import cross_entropy, softmax
from tests.methods.support import batch, check, logits


def test_tfkd_reg() -> None:
    images, labels = batch()
    alpha, tau, m, correct = 0.3, 0.5, 7.0, 0.9

    def reference(moving, fixed) -> float:
        loss = 0.0
        for z, y in zip(logits(moving.backbone, images).tolist(), labels.tolist(), strict=True):
            u = [correct if n == y else (1 - correct) / 4 for n in range(5)]
            teacher, student = softmax(u, tau), softmax(z)
            divergence = sum(q * math.log(q / p) for q, p in zip(teacher, student, strict=True))
            loss += (1 - alpha) * cross_entropy(z, y) + alpha * m * divergence / 5
        return loss / 4

    method = TfKDReg(make_toy(), alpha=alpha, temperature=tau, multiplier=m, correct=correct)
    check(method, reference, images, labels)


def test_virtual_teacher_is_almost_uniform_by_default() -> None:
    c = TfKDReg(make_toy()).config
    q = softmax([c.correct, *[(1 - c.correct) / 99] * 99], c.temperature)
    assert q[0] == pytest.approx(0.01050, abs=1e-5)
    assert q[1] == pytest.approx(0.00999, abs=1e-5)
    assert c.alpha * c.multiplier / 100 == pytest.approx(0.1)


def test_tfkd_self() -> None:
    images, labels = batch()
    alpha, temperature, m = 0.4, 6.0, 50.0
    method = TfKDSelf(make_toy(), alpha=alpha)
    teacher = make_toy().eval()
    teacher(images)
    method.set_teacher(copy.deepcopy(teacher))

    def reference(moving, fixed) -> float:
        loss = 0.0
        targets = logits(teacher, images).tolist()
        for z, t, y in zip(logits(moving.backbone, images).tolist(), targets, labels.tolist(), strict=True):
            q, p = softmax(t, temperature), softmax(z, temperature)
            mean = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True)) / 5
            loss += (1 - alpha) * cross_entropy(z, y) + alpha * m * temperature**2 * mean
        return loss / 4

    check(method, reference, images, labels)


def test_teacher_stays_frozen_in_evaluation_mode() -> None:
    images, labels = batch()
    method = TfKDSelf(make_toy())
    method.set_teacher(make_toy())
    before = copy.deepcopy(method.teacher.state_dict())
    method.train()
    assert method.backbone.training
    assert not any(module.training for module in method.teacher.modules())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    method(images, labels)["loss"].backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in method.teacher.state_dict().items())


def settings(method: object, epochs: int = 1) -> dict:
    return {
        "backbone": "wrn_10_1", "method": method, "optim": {"schedule": "cosine", "warmup_epochs": 0},
        "run": {"epochs": epochs, "batch_size": 4, "progress": False, "precision": "fp32"},
    }  # fmt: skip


def test_baseline_run_can_teach(tmp_path: Path, npz: Path) -> None:
    mixskd.train(data=str(npz), out=str(tmp_path / "teacher"), **settings("baseline"))
    student = {"name": "tfkd_self", "teacher": str(tmp_path / "teacher")}
    summary = mixskd.train(data=str(npz), out=str(tmp_path / "student"), **settings(student, epochs=2))
    state = load_checkpoint(tmp_path / "student" / "checkpoint.pt")["method"]
    teacher = mixskd.load(tmp_path / "teacher").state_dict()
    assert all(torch.equal(state[f"teacher.{name}"], value) for name, value in teacher.items())
    assert not any(name.startswith("teacher") for name in mixskd.load(summary["out"]).state_dict())


def test_unusable_teachers_are_rejected(tmp_path: Path, npz: Path) -> None:
    with pytest.raises(UserError, match=r"tfkd_self needs a trained teacher: .* --method\.teacher"):
        mixskd.train(data=str(npz), out=str(tmp_path / "a"), **settings("tfkd_self"))
    missing = {"name": "tfkd_self", "teacher": str(tmp_path / "missing")}
    with pytest.raises(UserError, match="no model at"):
        mixskd.train(data=str(npz), out=str(tmp_path / "b"), **settings(missing))
    assert not (tmp_path / "b").exists()
    with pytest.raises(UserError, match="another number of classes"):
        TfKDSelf(make_toy()).set_teacher(make_toy(classes=4))
    with pytest.raises(UserError, match="call set_teacher"):
        TfKDSelf(make_toy())(*batch())
