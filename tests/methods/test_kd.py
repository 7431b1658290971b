"""Distillation from any teacher: the loss, and the images as the teacher wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as vision

import mixskd
from mixskd import KD, UserError, build_backbone
from mixskd.artifacts.model_file import save_model
from mixskd.benchmarking.cost import Cost, count_cost
from mixskd.config.build import build_experiment
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from mixskd.methods.parts.own_view import OwnView
from mixskd.training import teachers
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.teachers import load_teacher
from tests.conftest import make_toy, write_npz
from tests.methods.reference import cross_entropy, kl
from tests.methods.support import batch, check, logits

STUDENT = Preprocess(8, CIFAR_MEAN, CIFAR_STD)


def test_the_loss_is_that_of_labels_and_teacher() -> None:
    images, labels = batch()
    alpha, temperature = 0.3, 5.0
    method, teacher = KD(make_toy(), alpha=alpha, temperature=temperature), make_toy()
    teacher(torch.randn(8, 3, 8, 8, dtype=torch.float64))
    method.set_teacher(teacher)

    def reference(moving, fixed) -> float:
        loss = 0.0
        targets = logits(teacher, images).tolist()
        for z, t, y in zip(logits(moving.backbone, images).tolist(), targets, labels.tolist(), strict=True):
            loss += ((1 - alpha) * cross_entropy(z, y) + alpha * kl(z, t, temperature)) / 4
        return loss

    check(method, reference, images, labels)
    assert not any(module.training for module in method.train().teacher.modules())


def test_a_teacher_sees_its_own_size_and_normalisation() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    given = vision.normalize(pixels, list(CIFAR_MEAN), list(CIFAR_STD))
    own = OwnView(nn.Identity(), (CIFAR_MEAN, CIFAR_STD), (IMAGENET_MEAN, IMAGENET_STD), 12)
    expected = vision.normalize(vision.resize(pixels, [12, 12]), list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(own(given), expected, rtol=1e-5, atol=1e-5)


def saved(path: Path, classes: tuple[str, ...] = ("a", "b", "c"), size: int = 8) -> str:
    save_model(
        build_backbone("wrn_10_1", len(classes)), path, backbone_name="wrn_10_1", classes=classes, image_size=size,
        mean=STUDENT.mean, std=STUDENT.std,
    )  # fmt: skip
    return str(path)


def test_a_model_file_teaches_as_it_is_or_in_its_own_view(tmp_path: Path) -> None:
    same = load_teacher(saved(tmp_path / "same.safetensors"), STUDENT, ("a", "b", "c"))
    assert not isinstance(same, OwnView)
    larger = load_teacher(saved(tmp_path / "larger.safetensors", size=16), STUDENT, ("a", "b", "c"))
    assert isinstance(larger, OwnView)
    assert larger.size == 16
    assert larger(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_a_network_with_published_weights_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "start_from", lambda network, source: [])
    teacher = load_teacher("torchvision/resnet18", STUDENT, ("a", "b", "c"))
    assert isinstance(teacher, OwnView)
    assert teacher.size == 224
    torch.testing.assert_close(teacher.scale.flatten(), torch.tensor(CIFAR_STD) / torch.tensor(IMAGENET_STD))


def test_teachers_of_other_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match="another number of classes"):
        load_teacher(file, STUDENT, ("a", "b"))
    with pytest.raises(UserError, match="other classes than the data: 'b' in the place of 'c'"):
        load_teacher(file, STUDENT, ("a", "c", "b"))
    with pytest.raises(UserError, match=r"no model at .*missing"):
        load_teacher(str(tmp_path / "missing"), STUDENT, ("a", "b"))
    with pytest.raises(UserError, match="would be fetched from elsewhere"):
        load_teacher("timm/hf-hub:someone/something", STUDENT, ("a", "b"))
    monkeypatch.setattr(teachers, "start_from", lambda network, source: ["the classifier is new"])
    with pytest.raises(UserError, match="not for 2 classes; train it on this data first"):
        load_teacher("torchvision/resnet18", STUDENT, ("a", "b"))


def test_a_run_of_another_size_teaches(tmp_path: Path, npz: Path) -> None:
    run = {"epochs": 1, "batch_size": 4, "progress": False, "precision": "fp32"}
    small = write_npz(tmp_path / "small.npz")
    with np.load(small) as file:
        arrays = {key: x[:, ::2, ::2] if key.endswith("images") else x for key, x in file.items()}
    np.savez(small, **{**arrays, "classes": np.array(["a", "b", "c"])})
    usual = {"backbone": "wrn_10_1", "run": run}
    mixskd.train(data=str(npz), method="baseline", out=str(tmp_path / "teacher"), **usual)
    student = {"name": "kd", "teacher": str(tmp_path / "teacher")}
    mixskd.train(data=str(small), method=student, out=str(tmp_path / "student"), **usual)
    state = load_checkpoint(tmp_path / "student" / "checkpoint.pt")["method"]
    teacher = mixskd.load(tmp_path / "teacher").state_dict()
    assert all(torch.equal(state[f"teacher.network.{name}"], value) for name, value in teacher.items())


def test_the_cost_of_a_larger_teacher_is_counted(tmp_path: Path) -> None:
    def cost(name: str, **options: str) -> Cost:
        return count_cost(build_experiment({"backbone": "wrn_10_1", "method": {"name": name, **options}}), 3, 8)

    def flops(teacher: str) -> float:
        return cost("kd", teacher=teacher).training_flops

    plain = cost("baseline")
    assert flops("not yet there") == plain.training_flops + plain.inference_flops
    assert flops(saved(tmp_path / "same.safetensors")) == flops("not yet there")
    larger = flops(saved(tmp_path / "larger.safetensors", size=16)) - plain.training_flops
    assert larger == pytest.approx(4 * plain.inference_flops, rel=0.01)
