"""The optimizer of a method: the learning rate and weight decay of each parameter, and frozen stages."""

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mixskd.backbones.staged import StagedBackbone
from mixskd.config import OptimConfig
from mixskd.errors import UserError, first_line, nearest
from mixskd.methods.base import Method
from mixskd.runtime.packages import needed
from mixskd.training.engine import Engine

TIMM = "timm/"
EMBEDDINGS = ("pos_embed", "cls_token", "reg_token", "dist_token", "relative_position_bias_table")


def build_optimizer(method: Method, optim: OptimConfig, engine: Engine, *, started: bool = False) -> Optimizer:
    """The optimizer that ``optim`` names, for the parameters of ``method`` that are trained.

    ``started``: the backbone starts from trained weights. The rate of a group is that of the schedule times its
    ``lr_scale``. Raises UserError for an unknown optimizer, or layer decay for a network without an order of stages.
    """
    groups = parameter_groups(method, optim, started=started)
    if optim.name.startswith(TIMM):
        return timm_optimizer(groups, optim)
    fused = engine.fused or None  # with None torch uses its foreach form on a GPU, with False it does not
    if optim.name == "adamw":
        optimizer: Optimizer = torch.optim.AdamW(
            groups, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]), fused=fused, capturable=engine.cuda_graphs
        )
        # The first steps before a recording are eager, of which torch warns.
        optimizer._warned_capturable_if_run_uncaptured = engine.cuda_graphs  # type: ignore[attr-defined]
    else:
        optimizer = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=fused)
    if engine.precision == "fp16":
        create_state(optimizer, optim)
    return optimizer


EXECUTION = ("foreach", "fused", "capturable")


def executed_as(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """``state`` with the execution flags of ``optimizer``; torch would load those of the machine that saved it."""
    own = [{key: group[key] for key in EXECUTION if key in group} for group in optimizer.param_groups]
    groups = [{**group, **flags} for group, flags in zip(state["param_groups"], own, strict=False)]
    return {**state, "param_groups": groups}


def create_state(optimizer: Optimizer, optim: OptimConfig) -> None:
    """Create the optimizer's state as zeros. If the loss scaler skips the first step, the fused optimizer would leave
    its state unwritten.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if optim.name == "adamw":
                step = torch.zeros((), dtype=torch.float32, device=parameter.device)
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": step, **averages}
            elif optim.momentum > 0:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def parameter_groups(method: Method, optim: OptimConfig, *, started: bool) -> list[dict[str, Any]]:
    """The trained parameters with their ``weight_decay`` and ``lr_scale``; one group if all have the same."""
    stages = len(method.backbone.stages)
    if optim.layer_decay != 1 and stages < 2:
        raise UserError(
            f"optim.layer_decay needs a network with an order of stages, which {method.backbone.name} lacks"
        )
    undecayed = set() if optim.decay_norms else set(norms_and_embeddings(method))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed else optim.weight_decay
            scale = optim.layer_decay ** (stages + 1 - depth(name, stages))
            if started and is_fresh(name):
                scale *= optim.fresh_lr_scale
            groups.setdefault((decay, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


def depth(name: str, stages: int) -> int:
    """The number of the parameter's stage, from 1; ``stages + 1`` for parameters outside the backbone's stages."""
    if name.startswith("backbone.stages."):
        return int(name.split(".")[2]) + 1
    return stages + 1


def is_fresh(name: str) -> bool:
    """Whether a parameter is new if the backbone starts from trained weights: the head and what only training uses,
    except the stages of branches, which are copies of the backbone's.
    """
    return not name.startswith(("backbone.stages.", "branches.alignments."))


def norms_and_embeddings(method: nn.Module) -> Iterator[str]:
    """The names of biases, of the parameters of norms, of embeddings and of other vectors."""
    embeddings = {
        f"{prefix}.{name}" for prefix, module in method.named_modules() if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters(recurse=False)
    }  # fmt: skip
    for name, parameter in method.named_parameters():
        if parameter.ndim <= 1 or name in embeddings or name.rsplit(".", 1)[-1] in EMBEDDINGS:
            yield name


def timm_optimizer(groups: list[dict[str, Any]], optim: OptimConfig) -> Optimizer:
    """An optimizer of timm by its name there. Raises UserError if timm is not installed or lacks it."""
    timm = needed("timm.optim", "timm")
    name, known = optim.name.removeprefix(TIMM), [str(name) for name in timm.list_optimizers()]
    if name not in known:
        raise UserError(f"timm has no optimizer {name!r}{nearest(name, known)}; see timm.optim.list_optimizers()")
    try:
        return timm.create_optimizer_v2(
            groups, opt=name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise UserError(f"timm cannot make the optimizer {name}: {first_line(error)}") from None


def freeze(backbone: StagedBackbone, stages: int) -> None:
    """Freeze the first ``stages`` stages: no gradient, and batch norm in evaluation mode.

    Raises UserError if the backbone has fewer stages.
    """
    if stages > len(backbone.stages):
        raise UserError(f"optim.freeze {stages}: {backbone.name} has {len(backbone.stages)} stages")
    for stage in list(backbone.stages)[:stages]:
        stage.requires_grad_(False)
        stage.eval()
        stage.train = types.MethodType(_stays_in_evaluation, stage)  # type: ignore[method-assign]


def freeze_norms(method: Method) -> None:
    """Keep the running statistics of all batch norms of ``method`` that came with the weights: evaluation mode.

    Those of its branches' stages, which are copies of the backbone's, are among them; those of fresh parts train.
    """
    for name, module in method.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not is_fresh(name):
            module.eval()
            module.train = types.MethodType(_stays_in_evaluation, module)  # type: ignore[method-assign]


def _stays_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
