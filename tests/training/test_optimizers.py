"""Optimizers: which parameter gets which rate and decay, exact resume, what is frozen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mixskd
from mixskd import MixSKD, build_backbone
from mixskd.config import OptimConfig, merge
from mixskd.config.build import build_experiment
from mixskd.errors import UserError
from mixskd.methods import Baseline
from mixskd.training.checkpoint import load_checkpoint
from mixskd.training.engine import Engine, for_optimizer
from mixskd.training.optimizers import build_optimizer, executed_as, parameter_groups
from mixskd.training.schedule import learning_rate
from tests.interruption import StopsAt


def settings(**optim: Any) -> dict[str, Any]:
    return {
        "backbone": "wrn_10_1", "method": "mixskd",
        "optim": {"schedule": "cosine", "warmup_epochs": 0, **optim},
        "run": {"epochs": 2, "batch_size": 4, "progress": False, "checkpoint_every_steps": 4, "precision": "fp32"},
    }  # fmt: skip


def names_by_group(method: Any, groups: list[dict[str, Any]]) -> list[tuple[float, float, set[str]]]:
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    return [(g["weight_decay"], g["lr_scale"], {names[id(p)] for p in g["params"]}) for g in groups]


def test_sgd_has_one_group_with_everything() -> None:
    method = MixSKD(build_backbone("wrn_10_1", 5))
    (group,) = parameter_groups(method, OptimConfig(), started=False)
    assert len(group["params"]) == len(list(method.parameters()))
    assert (group["weight_decay"], group["lr_scale"]) == (5e-4, 1.0)


def test_the_usual_values_of_each_optimizer() -> None:
    sgd, adamw = OptimConfig(), build_experiment({"optim": {"name": "adamw"}}).optim
    assert (sgd.lr, sgd.weight_decay, sgd.nesterov, sgd.decay_norms) == (0.1, 5e-4, True, True)
    assert (adamw.lr, adamw.weight_decay, adamw.decay_norms) == (1e-3, 0.05, False)
    assert build_experiment({"optim": {"name": "adamw", "lr": 0.5}}).optim.lr == 0.5


def test_changed_optimizer_has_its_own_defaults() -> None:
    recipe = {"optim": {"lr": 0.1, "weight_decay": 5e-4, "nesterov": True, "schedule": "cosine"}}
    optim = build_experiment(merge(recipe, {"optim": {"name": "adamw"}})).optim
    assert (optim.lr, optim.weight_decay, optim.schedule) == (1e-3, 0.05, "cosine")
    assert build_experiment(merge(recipe, {"optim": {"name": "sgd", "lr": 0.2}})).optim.weight_decay == 5e-4


def test_norms_biases_and_embeddings_do_not_decay_on_request() -> None:
    method = Baseline(build_backbone("wrn_10_1", 5))
    groups = names_by_group(
        method, parameter_groups(method, OptimConfig(name="adamw", decay_norms=False), started=False)
    )
    decayed = next(names for decay, _, names in groups if decay > 0)
    rest = next(names for decay, _, names in groups if decay == 0)
    assert all(method.get_parameter(name).ndim > 1 for name in decayed)
    assert "backbone.head.bias" in rest
    assert all(method.get_parameter(name).ndim == 1 for name in rest)


def test_learning_rates_by_stage_and_for_new_parameters() -> None:
    method = MixSKD(build_backbone("wrn_10_1", 5))
    optim = OptimConfig(layer_decay=0.5, fresh_lr_scale=10)
    scales = {
        name: scale
        for _, scale, names in names_by_group(method, parameter_groups(method, optim, started=True))
        for name in names
    }
    for name, scale in scales.items():
        if name.startswith("backbone.stages."):
            assert scale == 0.5 ** (3 - int(name.split(".")[2])), name  # three stages, then the head
        elif name.startswith("branches.alignments."):
            assert scale == 1, name
        else:
            assert scale == 10, name
    assert {0.125, 0.25, 0.5, 1, 10} == set(scales.values())


def test_each_group_is_stepped_at_its_rate() -> None:
    from mixskd.data.batch import Batch
    from mixskd.training.step import build_step

    torch.manual_seed(0)
    method = Baseline(build_backbone("wrn_10_1", 5))
    optim = OptimConfig(momentum=0.0, nesterov=False, weight_decay=0.0, layer_decay=0.5)
    step = build_step(method, optim, torch.device("cpu"), Engine())
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    gradients: dict[str, torch.Tensor] = {}
    for name, parameter in method.named_parameters():
        parameter.register_hook(lambda g, name=name: gradients.__setitem__(name, g.clone()))
    step(Batch(torch.randn(4, 3, 16, 16), torch.arange(4), {}), 0.3, seed=0)
    for name, parameter in method.named_parameters():
        scale = 0.5 ** (3 - int(name.split(".")[2])) if ".stages." in name else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] - 0.3 * scale * gradients[name], msg=name)


@pytest.mark.parametrize(
    "optim",
    [{"name": "adamw"}, {"name": "adamw", "layer_decay": 0.7, "ema": 0.9}, {"name": "timm/lion"}, {"freeze": 1}],
)
def test_resume_is_exact(optim: dict[str, Any], npz: Path, tmp_path: Path) -> None:
    if optim.get("name", "").startswith("timm/"):
        pytest.importorskip("timm")
    mixskd.train(data=str(npz), out=str(tmp_path / "whole"), **settings(**optim))
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(data=str(npz), out=str(tmp_path / "cut"), listeners=[StopsAt(5)], **settings(**optim))
    mixskd.train(data=str(npz), out=str(tmp_path / "cut"), resume=True, **settings(**optim))
    whole, cut = (load_checkpoint(tmp_path / run / "checkpoint.pt")["method"] for run in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_frozen_stages_stay_to_the_bit(npz: Path, tmp_path: Path) -> None:
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **settings(freeze=2))
    torch.manual_seed(0)
    fresh = build_backbone("wrn_10_1", 3).state_dict()
    trained = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["method"]
    for name, value in fresh.items():
        same = torch.equal(value, trained[f"backbone.{name}"])
        assert same == name.startswith(("stages.0.", "stages.1.")), name


def test_cosine_by_step_ends_near_zero() -> None:
    by_epoch, by_step = (
        learning_rate(OptimConfig(schedule="cosine", cosine_by=by, warmup_epochs=1), 7 * 50 - 1, 50, 7)
        for by in ("epoch", "step")
    )
    assert by_epoch > 5e-3
    assert by_step < 1e-5


def test_optimizer_state_after_a_skipped_first_step() -> None:
    for name, keys in (("sgd", {"momentum_buffer"}), ("adamw", {"step", "exp_avg", "exp_avg_sq"})):
        method = Baseline(build_backbone("wrn_10_1", 5))
        optimizer = build_optimizer(method, OptimConfig(name=name), Engine(precision="fp16"))
        for parameter in method.parameters():
            assert optimizer.state[parameter].keys() == keys
            assert all(not value.any() for value in optimizer.state[parameter].values())
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"name": "adamv"}, "optim.name must be sgd, adamw or timm/NAME, not 'adamv'; did you mean 'adamw'"),
        ({"name": "adamw", "betas": (0.9,)}, "optim.betas must be two numbers"),
        ({"layer_decay": 1.5}, "optim.layer_decay must be above 0 and at most 1"),
        ({"cosine_by": "day"}, "optim.cosine_by must be epoch or step"),
    ],
)
def test_bad_settings(optim: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimConfig(**optim)


def test_optimizers_of_timm_are_not_recorded() -> None:
    engine = Engine(fused=True, cuda_graphs=True)
    assert for_optimizer(engine, "adamw") == engine
    assert for_optimizer(engine, "timm/lion") == Engine()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_loaded_optimizer_uses_the_execution_flags_of_this_machine(name: str) -> None:
    """A run may go on elsewhere, or without CUDA graphs; torch would take over the flags of the checkpoint."""
    here, there = ({"foreach": a, "fused": b, "capturable": b} for a, b in ((False, True), (None, False)))
    optimizers = []
    for flags in (here, there):
        parameter = torch.nn.Parameter(torch.ones(3))
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.SGD
        optimizer = kind([parameter], lr=0.1, **({} if name == "adamw" else {"momentum": 0.9}))
        parameter.grad = torch.ones(3)
        optimizer.step()
        for group in optimizer.param_groups:
            group.update({key: value for key, value in flags.items() if key in group})
        optimizers.append(optimizer)
    one, other = optimizers
    one.load_state_dict(executed_as(one, {**other.state_dict()}))
    (group,) = one.param_groups
    assert (group["foreach"], group["fused"], group.get("capturable", True)) == (False, True, True)
    assert one.state_dict()["state"].keys() == other.state_dict()["state"].keys()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        one.load_state_dict(executed_as(one, {**other.state_dict(), "param_groups": []}))
