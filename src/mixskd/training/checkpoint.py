"""Write and read checkpoints: written whole or not at all, checked before use, and nothing in them is executed."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from torch import Tensor

from mixskd.config.records import Amount, Mismatch, Place, ShortText, Text, Whole, read_record
from mixskd.errors import UserError
from mixskd.runtime.digest import digest_of
from mixskd.runtime.files import check_readable, load_tensors, replacing

FORMAT = "mixskd-checkpoint-2"
OLDER = ("mixskd-checkpoint-1",)  # without digest and experiment; with one of them it is no file of this format

Tensors = dict[Annotated[str, Meta(min_length=1, max_length=10_000)], Tensor]
Steps = Annotated[int, Meta(ge=0, le=2**53)]


class Row(Struct):
    """A row of ``metrics.csv``, as far as it is checked here."""

    epoch: Place
    step: Whole


class StoredPosition(Struct):
    """How far the run is, see :class:`mixskd.training.position.Position`."""

    step: Steps
    rows: list[Row]
    seconds: Amount
    images: Steps


class OptimizerState(Struct):
    """A state of an optimizer of torch."""

    state: dict[Any, dict[Any, Any]]
    param_groups: Annotated[list[dict[Text, Any]], Meta(min_length=1)]


class DataDescription(Struct):
    """The data of the run."""

    classes: list[Text]
    digest: Text


class Arithmetic(Struct):
    """The precision of the run; other choices, which earlier versions stored, are ignored."""

    precision: Literal["fp32", "bf16", "fp16"]
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


class Best(Struct):
    """The weights with the best score so far."""

    epoch: Place
    score: float
    weights: Tensors


class ProbeScore(Struct):
    """Top-1 of one classifier of the probe, in per cent."""

    top1: Annotated[float, Meta(ge=0, le=100)]


class Probe(Struct):
    """The classifier of the probe that the head starts from."""

    classifier: ShortText
    chosen_by: ShortText
    scores: dict[ShortText, ProbeScore]


class Checkpoint(Struct):
    """The state of a run between two steps."""

    method: Tensors
    optimizer: OptimizerState
    scaler: dict[Text, float]
    position: StoredPosition
    sums: Annotated[list[dict[Text, Any]], Meta(min_length=1)]
    data: DataDescription | UnsetType = UNSET
    splits_digest: Text | UnsetType | None = UNSET
    ema: Tensors | None = None
    experiment: dict[Text, Any] | UnsetType = UNSET
    probe: Probe | None = None
    arithmetic: Arithmetic | UnsetType = UNSET
    best: Best | None = None

    def __post_init__(self) -> None:
        for place, row in enumerate(self.sums):
            for name, value in row.items():
                is_scalar = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
                if type(value) is not float and not is_scalar:
                    raise ValueError(f"sums[{place}].{name} must be a number on its own")


def previous(path: Path) -> Path:
    """The path of the checkpoint that was written before the one at ``path``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: Mapping[str, Any], *, keep: bool = False) -> None:
    """Write ``state`` (tensors and plain values) to ``path`` atomically, with a digest of its content.

    With ``keep``, the earlier checkpoint stays beside it as :func:`previous`. Raises UserError on a full disk.
    """
    content = {key: value for key, value in state.items() if key not in ("format", "digest")}
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, "digest": digest_of(content), **content}, temporary)
        if keep and path.is_file():
            _keep(path)


def _keep(path: Path) -> None:
    kept = previous(path)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        with suppress(OSError):  # on a full disk the newest checkpoint matters more
            shutil.copyfile(path, kept)


def drop_previous(path: Path) -> None:
    """Remove the checkpoint before ``path``, after the end of the run."""
    previous(path).unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in ``path``, with its tensors on ``device``.

    Raises UserError if it is missing, truncated, corrupt, no checkpoint of mixskd, or does not match its digest.
    """
    check_readable(path, f"no checkpoint at {path}; train without --resume to start a run there")
    hint = "delete it and start again"
    try:
        state = load_tensors(path)
    except ValueError:
        raise UserError(f"{path} is corrupt or truncated, or it is not a checkpoint of mixskd; {hint}") from None
    known = state.pop("format", None) if isinstance(state, dict) else None
    if known not in (FORMAT, *OLDER):
        is_newer = isinstance(known, str) and known.startswith("mixskd-checkpoint-")
        newer = "a newer mixskd wrote it, so update this one, or " if is_newer else ""
        raise UserError(f"{path} is not a checkpoint of mixskd; {newer}give the folder of a run made by `mixskd train`")
    older = known in OLDER and not state.keys() & {"digest", "experiment"}
    written = state.pop("digest", None)
    try:
        whole = older or written == digest_of(state)
    except ValueError:
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: its content is not what was written (its digest differs); {hint}")
    return _moved(state, torch.device(device))


def load_newest(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], list[str]]:
    """The checked state in ``path``, or in the checkpoint before it if ``path`` is damaged, and notes on that.

    Raises UserError as :func:`load_checkpoint` does, and for a state without the parts of a checkpoint.
    """
    try:
        return examined(load_checkpoint(path, device), path), []
    except UserError as error:
        if not previous(path).is_file():
            raise
        try:
            state = examined(load_checkpoint(previous(path), device), previous(path))
        except UserError:
            raise error from None
        return state, [f"{path.name} was damaged; the run continued from the checkpoint before it"]


def examined(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """``state`` itself. Raises UserError with the first part that is missing or wrong."""
    try:
        read_record(state, Checkpoint)
    except Mismatch as error:
        raise UserError(f"{path} is damaged: {error}; delete it and start again") from None
    return state


def check_fits(path: Path, name: str, saved: Any, live: Mapping[str, Tensor]) -> None:
    """Raises UserError, naming ``path``, if the names, shapes or types of the tensors ``saved`` differ from those of
    ``live``.
    """
    if not isinstance(saved, Mapping) or saved.keys() != live.keys():
        raise UserError(f"{path} belongs to another run: its {name} has other parts")
    for key, value in live.items():
        if saved[key].shape != value.shape or saved[key].dtype != value.dtype:
            raise UserError(
                f"{path} belongs to another run: its {name} has {key} as {saved[key].dtype} of "
                f"{tuple(saved[key].shape)}, not {value.dtype} of {tuple(value.shape)}"
            )


def check_position(path: Path, position: Mapping[str, Any], epochs: int, length: int) -> None:
    """Raises UserError unless the rows are those of the epochs that ``position`` has passed, ``length`` steps each."""
    step, rows = position["step"], position["rows"]
    if len(rows) > epochs or not len(rows) * length <= step <= (len(rows) + 1) * length:
        raise UserError(
            f"{path} is damaged: step {step} with {len(rows)} epochs done of {length} steps each, and {epochs} in all; "
            "delete it and start again"
        )
    for place, row in enumerate(rows):
        if row["epoch"] != place + 1:
            raise UserError(f"{path} is damaged: row {place + 1} is that of epoch {row['epoch']}")
        for key, value in row.items():
            if not isinstance(key, str) or type(value) not in (int, float):
                raise UserError(f"{path} is damaged: {key!r} of epoch {place + 1} is not a number")


def check_optimizer(path: Path, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raises UserError unless ``saved`` is a state of ``optimizer``: its groups, and tensors shaped as its weights."""
    wrong = UserError(f"{path} belongs to another run: its optimizer has other parts")
    live = optimizer.state_dict()["param_groups"]
    if len(saved["param_groups"]) != len(live):
        raise wrong
    shapes: dict[int, torch.Size] = {}
    for mine, theirs, group in zip(live, saved["param_groups"], optimizer.param_groups, strict=True):
        # The scale of a group's rate is the configuration's, and earlier versions had none.
        if mine.keys() - {"lr_scale"} != theirs.keys() - {"lr_scale"} or mine["params"] != theirs["params"]:
            raise wrong
        kinds = (bool, int, float, Tensor, type(None), list, tuple, str)
        for key, value in theirs.items():
            same = type(value) is type(mine[key]) or {type(value), type(mine[key])} <= {int, float, Tensor}
            if not isinstance(value, kinds) or not same:
                raise wrong
        shapes |= {number: p.shape for number, p in zip(mine["params"], group["params"], strict=True)}
    for number, parts in saved["state"].items():
        if number not in shapes:
            raise wrong
        for value in parts.values():
            if isinstance(value, Tensor) and value.ndim and value.shape != shapes[number]:
                raise wrong
            if not isinstance(value, Tensor | int | float | None):
                raise wrong


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(part, device) for part in value)
    return value
