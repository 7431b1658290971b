"""An experiment: all that a run depends on, as frozen dataclasses. It imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mixskd.config.data import DataConfig
from mixskd.config.merging import flatten
from mixskd.config.optim import OptimConfig
from mixskd.config.run import RunConfig
from mixskd.config.types import Settings


@dataclass(frozen=True)
class MethodChoice(Settings, prefix="method."):
    """The objective.

    Args:
        name: the name of the method; ``mixskd list methods`` shows all.
        options: those of its hyper-parameters that differ from its defaults.
    """

    name: str = "mixskd"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment(Settings):
    """All that a run depends on; ``config.yaml`` of a run folder.

    Args:
        backbone: the network that is deployed, by name.
        weights: the weights to start from: a run folder, a file with a state dict, or ``pretrained`` for those that
            torchvision or timm publish; random if not given.
        out: the run's folder; a new one in ``runs/`` if not given.
    """

    backbone: str = "cifar_resnet18"
    weights: str | None = None
    method: MethodChoice = field(default_factory=MethodChoice)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    out: str = "runs/mixskd"


def planned_epochs(restarts: tuple[int, ...], epochs: int) -> int:
    """The epochs of a run before any ``--more-epochs``, whose images keep the last size of ``data.scale_schedule``."""
    return (*restarts, epochs)[0]


# None changes what is computed (compile and cuda_graphs may change the rounding), so a run may go on with other values.
NOT_COMPARED = (
    "out", "run.progress", "run.curve", "run.log_every", "run.checkpoint_every_steps", "run.checkpoint_every_epochs",
    "run.tensorboard", "run.wandb", "run.mlflow", "data.workers", "data.verify", "data.max_pixels",
    "run.checkpoint_activations", "run.compile", "run.cuda_graphs", "run.measure", "run.probe", "run.score_test",
)  # fmt: skip


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain values; the options of the method stand beside its name."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(experiment))  # lists in place of tuples
    values["method"] = {"name": experiment.method.name, **values["method"]["options"]}
    return values


def to_yaml(experiment: Experiment) -> str:
    """The text of ``config.yaml``."""
    return yaml.safe_dump(to_dict(experiment), sort_keys=False)


def difference(old: Experiment, new: Experiment) -> list[str]:
    """The settings that differ, as ``optim.lr 0.1 -> 0.05``; settings that do not change the result are left out."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    teacher, now = before.get("method.teacher"), after.get("method.teacher")
    if teacher and now and _same_run(teacher, now):
        before["method.teacher"] = now
    if "auto" in (before["run.batch_size"], after["run.batch_size"]):  # a run writes down what it found
        before["run.batch_size"] = after["run.batch_size"]
    return [
        f"{key} {before.get(key, 'default')} -> {after.get(key, 'default')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in NOT_COMPARED
    ]


def _same_run(old: str, new: str) -> bool:
    """Whether both paths name one run: the same path in another form, or the place of the run before its grid was
    moved.
    """
    if Path(old).resolve() == Path(new).resolve():
        return True
    return Path(old).name == Path(new).name and not Path(old).exists()


def known_keys() -> list[str]:
    """The dotted name of every field but the method's own."""
    return [*flatten(to_dict(Experiment()))]
