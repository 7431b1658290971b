"""What holds for every method: each backbone, both precisions, an objective in fp32, exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mixskd
from mixskd import build_backbone
from mixskd.data.batch import Batch
from mixskd.methods import METHODS
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.listeners import StepInfo
from tests.methods.support import extras, make, options_of

SIZES = {"wrn_10_1": 8, "cifar_resnet18": 8, "wrn_16_2": 8, "densenet_40_12": 8, "hcgnet_a1": 8}
SIZES |= {"cifar_preact_resnet18": 8, "resnet18": 32, "resnet50": 32}


def one_batch(method: Any, size: int, count: int = 4) -> Batch:
    images = torch.randn(count, 3, size, size)
    return Batch(images, torch.arange(count) % 5, extras(method.needs, images))


def check_step(backbone: str, name: str, precision: str) -> None:
    method = make(name, build_backbone(backbone, 5))
    images, labels, extra = one_batch(method, SIZES[backbone])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        out = method(images, labels, **extra)
    assert out["output"].shape == (4, 5)
    assert all(term.isfinite().all() for term in out.values())
    out["loss"].backward()
    for parameter, p in method.named_parameters():
        assert (p.grad is not None) == p.requires_grad, parameter
        assert p.grad is None or p.grad.isfinite().all(), parameter


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_small_backbone(name: str, precision: str) -> None:
    check_step("wrn_10_1", name, precision)


@pytest.mark.parametrize("backbone", ["densenet_40_12", "hcgnet_a1"])
def test_frskd_trains_on_dense_and_gated_stages(backbone: str) -> None:
    check_step(backbone, "frskd", "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", SIZES)
def test_every_method_trains_on_every_backbone(backbone: str, precision: str) -> None:
    for name in METHODS:
        check_step(backbone, name, precision)


class Coarse(TorchDispatchMode):
    """Notes products and logarithms in less than fp32, but convolutions."""

    EXACT = ("addmm", "mm", "bmm", "linear", "_softmax", "_log_softmax", "log", "exp", "logsumexp", "mse_loss", "pow")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.EXACT and any(isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 for x in args):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_classifiers_and_losses_use_fp32_under_autocast(name: str) -> None:
    method = make(name, build_backbone("wrn_10_1", 5))
    images, labels, extra = one_batch(method, 8)
    with torch.autocast("cpu", torch.bfloat16), Coarse() as coarse:
        method(images, labels, **extra)
    assert coarse.seen == []


def test_half_precision_product_is_detected() -> None:
    with torch.autocast("cpu", torch.bfloat16), Coarse() as coarse:
        torch.nn.Linear(3, 3)(torch.zeros(2, 3))
    assert coarse.seen


def settings(name: str, teacher: Path) -> dict[str, Any]:
    method = {"name": name, **options_of(name, str(teacher))}
    return {
        "backbone": "wrn_10_1", "method": method, "optim": {"schedule": "cosine", "warmup_epochs": 0},
        "run": {"epochs": 2, "batch_size": 4, "progress": False, "precision": "fp32", "checkpoint_every_steps": 4,
                "evaluate_every": 2},
    }  # fmt: skip


class Dying(mixskd.Listener):
    """Ends a run like Ctrl-C in its fifth step."""

    def step(self, info: StepInfo) -> None:
        if info.step == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", METHODS)
def test_resume_is_exact(name: str, tmp_path: Path, npz: Path) -> None:
    """Two epochs of three steps, whole and cut off in the fifth step, end in the same weights and state."""
    options = {**settings(name, tmp_path / "teacher"), "data": str(npz)}
    if METHODS[name].taught_by:
        mixskd.train(out=str(tmp_path / "teacher"), **{**options, "method": {"name": "baseline"}})
    mixskd.train(out=str(tmp_path / "whole"), **options)

    with pytest.raises(KeyboardInterrupt):
        mixskd.train(out=str(tmp_path / "cut"), listeners=[Dying()], **options)
    mixskd.train(out=str(tmp_path / "cut"), resume=True, **options)
    whole, cut = (load_checkpoint(tmp_path / run / "checkpoint.pt")["method"] for run in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    for file in ("metrics.csv", "model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()
