"""The whole of an experiment as frozen dataclasses. It imports no torch, so that the command line starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from mixskd.conversion import build as build
from mixskd.conversion import convert as convert
from mixskd.errors import UserError
from mixskd.optim_config import OF_AN_OPTIMIZER
from mixskd.optim_config import OptimConfig as OptimConfig
from mixskd.typed import BelowOne, Count, NotNegative, Positive, Settings, Share, WholeNumber
from mixskd.yaml_file import read_yaml as read_yaml

# The largest values that any machine could serve; a slip of the keyboard ends here and not in the memory.
Million = Annotated[int, Meta(ge=1, le=1_000_000)]
Pair = Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=2)]

SMALL = 64  # px: up to here an image is shown whole, above it is a photograph


@dataclass(frozen=True)
class DataConfig(Settings, prefix="data."):
    """What is trained on.

    Args:
        source: a data set by name, an image folder, a manifest (``.csv`` or ``.parquet``), an ``.npz`` file, or
            WebDataset shards (``train-{000..015}.tar``).
        root: the folder of a named data set, or the folder to download it to; ``~/.cache/mixskd`` if not given.
        image_size: height and width in pixels; those of the data set if not given.
        crop: how training images are cropped: ``pad`` (a random crop of the padded image), ``resized`` (a random part,
            resized), or ``auto``: ``pad`` up to 64 px, ``resized`` above, as the paper does.
        crop_scale: the smallest and the largest part of the area that ``resized`` crops.
        crop_ratio: the smallest and the largest ratio of width to height of that part.
        color_jitter: strengths of random brightness, contrast, saturation and hue (torchvision's ColorJitter); none if
            empty.
        augment: a policy on top of crop and flip: ``none``, ``cutout``, ``random_erasing``, ``autoaugment`` (by the
            image size, or ``autoaugment_cifar10``, ``_imagenet``, ``_svhn``), ``randaugment``, ``augmix`` or
            ``trivialaugment``.
        holdout: the share of each class that is held out as ``test`` if there is neither ``val`` nor ``test``.
        val_holdout: the share of each class of the training images that becomes ``val`` if there is none; 0 for none.
        split_seed: decides which images are held out; ``run.seed`` has no influence on it.
        group: keeps all images of one patient, camera or burst on one side of a split. It is a column of the manifest,
            or a regular expression on the path; the name of the group is its first bracket, or the whole match.
        duplicates: what to do with training images whose file is also in ``val`` or ``test``: ``warn``, ``error`` or
            ``drop`` them.
        balance: how often each class is drawn, from 0 (each image equally often) to 1 (each class equally often).
        per_class: train only on this many images of each class, the first ones; all if not given.
        flip: mirror half of the training images; if not given, this is done for all data but the digits.
        skip_bad_images: leave unreadable images out and count them, instead of stopping.
        workers: processes that decode images; as many as the cores allow if not given. Arrays need none.
    """

    source: str = "digits"
    root: str | None = None
    image_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    crop: Literal["auto", "pad", "resized"] = "auto"
    crop_scale: Pair = (0.08, 1.0)
    crop_ratio: Pair = (3 / 4, 4 / 3)
    color_jitter: Annotated[tuple[NotNegative, ...], Meta(max_length=4)] = ()
    augment: str = "none"
    holdout: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    val_holdout: BelowOne = 0.0
    split_seed: WholeNumber = 0
    group: str | None = None
    duplicates: Literal["warn", "error", "drop"] = "warn"
    balance: Share = 0.0
    per_class: Count | None = None
    flip: bool | None = None
    skip_bad_images: bool = False
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            pair = getattr(self, name)
            if pair[0] > pair[1]:
                raise UserError(f"data.{name} must be two numbers above 0, the smaller first, not {list(pair)}")
        if self.crop_scale[1] > 1:
            raise UserError(f"data.crop_scale must not be above 1, the whole image, not {self.crop_scale[1]}")
        if len(self.color_jitter) == 4 and self.color_jitter[3] > 0.5:
            raise UserError(f"data.color_jitter: the hue must be 0.5 or less, not {self.color_jitter[3]}")

    def crop_for(self, image_size: int) -> str:
        """``pad`` or ``resized`` for images of ``image_size`` pixels."""
        if self.crop != "auto":
            return self.crop
        return "pad" if image_size <= SMALL else "resized"


@dataclass(frozen=True)
class RunConfig(Settings, prefix="run."):
    """How long, how large, on what.

    Args:
        epochs: passes over the training images.
        batch_size: original images per update; MixSKD forwards as many mixes in addition.
        seed: the seed of weights, order, augmentation and mixing.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is bf16 on GPUs with bf16 arithmetic. On CPUs with
            bf16 arithmetic it is bf16 or fp32, whichever is faster for the network (see ``measure``). Elsewhere it is
            fp32.
        measure: on a CPU, time once which convolutions are faster as matrix products and, if it has bf16 arithmetic,
            which precision is faster. The times are kept in ``~/.cache/mixskd`` for later runs, and a resumed run keeps
            its choice.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        accumulate: parts into which each batch is split to save memory; batch norm then uses the statistics of each
            part.
        checkpoint_every_steps: steps between two checkpoints within an epoch; 0 to save only at the end of epochs.
        checkpoint_every_epochs: epochs between two checkpoints; the last epoch is always saved.
        evaluate_every: epochs between two evaluations on ``val``, or on ``test`` where there is no ``val``; the last
            epoch is always evaluated.
        keep: which weights are deployed: ``best`` (the epoch with the best score on ``val``; needs ``val``), ``last``,
            or ``auto``: ``best`` if there is ``val``, else ``last``, as in the paper's protocol.
        patience: stop after this many evaluations on ``val`` without a better score; 0 for never.
        log_every: steps between two readings of the losses; they are then shown, and a run that has diverged is
            stopped.
        progress: show the progress bar and one line per epoch.
        curve: show the loss and the score of this many last epochs as curves on the screen; 0 for none.
        tensorboard: also write losses, scores and a few mixes with their predictions for TensorBoard.
        wandb: also send losses and scores to Weights & Biases (``WANDB_MODE=offline`` keeps them on this machine).
        mlflow: also send losses and scores to MLflow (``MLFLOW_TRACKING_URI`` says where).
        sync_bn: compute the statistics of batch norm over the images of all processes (GPUs only).
        compile: compile forward and backward with ``torch.compile``: ``auto`` (on GPUs, if the compiler works there),
            ``always`` or ``never``.
        cuda_graphs: replay the whole step as one CUDA graph: ``auto`` (on GPUs), ``always`` or ``never``.
        branch_streams: on GPUs, run the branches of a method in parallel within the CUDA graph of a step that is not
            compiled (``--run.compile never``); not yet measured.
        deterministic: on GPUs, use convolutions and sums that give the same bits in every run; they are slower.
        probe: whether a run that starts from weights first fits simple classifiers on the frozen features, to compare
            with: ``auto`` (up to 5,000 images in all splits) or ``never``.
        all_heads: also score the classifiers that are used only in training; the released code reports the maximum over
            them and over epochs, chosen on the test set.
    """

    epochs: Million = 205
    batch_size: Million = 64
    seed: WholeNumber = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    measure: bool = True
    device: str = "auto"
    accumulate: Million = 1
    checkpoint_every_steps: WholeNumber = 0
    checkpoint_every_epochs: Count = 1
    evaluate_every: Count = 1
    keep: Literal["auto", "best", "last"] = "auto"
    patience: WholeNumber = 0
    log_every: Count = 20
    progress: bool = True
    curve: WholeNumber = 0
    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
    sync_bn: bool = False
    compile: Literal["auto", "always", "never"] = "auto"
    cuda_graphs: Literal["auto", "always", "never"] = "auto"
    branch_streams: bool = False
    deterministic: bool = False
    probe: Literal["auto", "never"] = "auto"
    all_heads: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise UserError(f"run.accumulate {self.accumulate} does not divide the batch size {self.batch_size}")


@dataclass(frozen=True)
class MethodChoice:
    """The objective by name, and those of its hyper-parameters that differ from its defaults."""

    name: str = "mixskd"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """All that a run depends on; ``config.yaml`` of a run folder.

    Args:
        backbone: the network that is deployed, by name.
        weights: the weights to start from: a run folder, a file with a state dict, or ``pretrained`` for those that
            torchvision or timm publish; random if not given.
        out: the run's folder.
    """

    backbone: str = "cifar_resnet18"
    weights: str | None = None
    method: MethodChoice = field(default_factory=MethodChoice)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    out: str = "runs/mixskd"

    def __post_init__(self) -> None:
        needed = {"head_start": self.optim.head_start == "probe", "norms": self.optim.norms == "frozen"}
        if self.weights is None and (found := [key for key, needs in needed.items() if needs]):
            value = getattr(self.optim, found[0])
            raise UserError(f"optim.{found[0]} {value} needs weights to start from; name some with --weights")


# None changes what is computed (compile and cuda_graphs may change the rounding), so a run may go on with other values.
NOT_COMPARED = (
    "out", "run.progress", "run.curve", "run.log_every", "run.checkpoint_every_steps", "run.checkpoint_every_epochs",
    "run.tensorboard", "run.wandb", "run.mlflow", "data.workers", "run.compile", "run.cuda_graphs",
    "run.measure", "run.branch_streams", "run.probe",
)  # fmt: skip


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain values; the options of the method stand beside its name."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(experiment))  # lists in place of tuples
    values["method"] = {"name": experiment.method.name, **values["method"]["options"]}
    return values


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """The inverse of :func:`to_dict`. Raises UserError for a key or a type that does not belong."""
    if not isinstance(values, Mapping):
        raise UserError(f"an experiment must hold keys such as backbone, method, data, not {values!r}")
    values = dict(values)
    method = values.get("method", {})
    if isinstance(method, Mapping):
        options = {key: value for key, value in method.items() if key != "name"}
        values["method"] = {"name": method.get("name", "mixskd"), "options": options}
    return build(Experiment, values)


def to_yaml(experiment: Experiment) -> str:
    """The text of ``config.yaml``."""
    return yaml.safe_dump(to_dict(experiment), sort_keys=False)


def difference(old: Experiment, new: Experiment) -> list[str]:
    """The settings that differ, as ``optim.lr 0.1 -> 0.05``; settings that do not change the result are left out."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    teacher, now = before.get("method.teacher"), after.get("method.teacher")
    if teacher and now and _same_run(teacher, now):
        before["method.teacher"] = now
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


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` overridden by ``over``, one mapping at a time; another method or optimizer drops the options of the
    former.
    """
    merged = dict(base)
    for key, value in over.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            if key == "method" and value.get("name", under.get("name")) != under.get("name"):
                under = {}
            if key == "optim" and (before := under.get("name", "sgd")) != value.get("name", before):
                under = {name: setting for name, setting in under.items() if name not in OF_AN_OPTIMIZER}
            merged[key] = merge(under, value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


# A group that is given as text alone, as in ``data: photos``.
ALONE = {"data": "data.source", "method": "method.name"}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys, and groups given as text alone, as nested mappings.

    Raises UserError for a key within another one's value.
    """
    values: dict[str, Any] = {}
    for key, value in flat.items():
        if key in ALONE and not isinstance(value, Mapping):
            if not isinstance(value, str):
                raise UserError(f"{key} must be text or hold keys, not {value!r}")
            key = ALONE[key]
        *groups, name = str(key).split(".")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UserError(f"{key} cannot be set: {group} is {inner!r}, which holds no keys")
        known = inner.get(name)
        inner[name] = merge(known if isinstance(known, dict) else {}, value) if isinstance(value, Mapping) else value
    return values


def default_out(experiment: Experiment, *, resume: bool, restarted: bool = False) -> str:
    """``runs/DATA-BACKBONE-METHOD-seedN``, with a number if there is already a run that is not to be resumed.

    Processes that were ``restarted`` after a failure take the newest of these folders, if its run has not ended.
    """
    data = Path(experiment.data.source).stem or "data"
    backbone = experiment.backbone.replace("/", "_")
    base = f"runs/{data}-{backbone}-{experiment.method.name}-seed{experiment.run.seed}"
    out, newest, number = base, base, 1
    while not resume and Path(out).exists():
        newest = out
        number += 1
        out = f"{base}-{number}"
    if restarted and number > 1 and not (Path(newest) / "summary.json").exists():
        return newest
    return out


def known_keys() -> list[str]:
    """The dotted name of every field but the method's own."""
    values = to_dict(Experiment())
    return [*flatten(values)]
