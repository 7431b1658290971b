"""``mixskd probe``: simple classifiers on the frozen features of some backbones, and the best one as a model."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from mixskd.artifacts.model_file import save_model
from mixskd.backbones import StagedBackbone, start_from
from mixskd.config import Experiment
from mixskd.config.build import build_experiment
from mixskd.config.trusted_backbones import is_elsewhere, remember_typed
from mixskd.data import DataBundle, load_data
from mixskd.data.splits_file import division_digest, write_division
from mixskd.errors import UserError
from mixskd.probing.classifiers import Linear
from mixskd.probing.features import last_layer, pooled_features
from mixskd.probing.head import set_head
from mixskd.probing.selection import Fitted, Labelled, Selection, fit_and_select
from mixskd.runtime.precision import choose_device
from mixskd.training.classification import build_network, normalised
from mixskd.training.run_folder import RunFolder
from mixskd.training.run_lock import run_lock
from mixskd.training.summary import summarise_untrained

Progress = Callable[[str, str, float], None]
"""Called with (backbone, split, fraction of the features that are done)."""


@dataclasses.dataclass(frozen=True)
class Probed:
    """A backbone, its preprocessed ``data``, its features by split, and the classifiers fitted on them."""

    name: str
    network: StagedBackbone
    data: DataBundle
    labelled: Mapping[str, Labelled]
    selection: Selection
    notes: tuple[str, ...]
    seconds: float

    @property
    def held_out(self) -> float:
        """The accuracy on held-out images of the best linear classifier, in per cent; -1 if no image was held out."""
        return max(self.selection.best_linear.held_out, -1.0)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each classifier: names, accuracies in per cent (``None`` where there is none) and seconds."""
        test = self.labelled.get("test")
        return [
            {
                "backbone": self.name,
                "classifier": one.name,
                "held_out": round(one.held_out, 5) if one.held_out >= 0 else None,
                "chosen_by": self.selection.by,
                "test": None if test is None else round(one.top1(test), 5),
                "features": self.labelled["train"].features.shape[1],
                "images": len(self.labelled["train"].labels),
                "seconds": round(self.seconds, 1),
            }
            for one in self.selection.fitted
        ]


def probe_backbones(
    experiment: Experiment,
    backbones: Sequence[str],
    *,
    overwrite: bool = False,
    progress: Progress = lambda backbone, split, share: None,
) -> dict[str, Any]:
    """Fit nearest neighbour, class prototypes and logistic regression on the frozen features of ``backbones``.

    ``experiment`` names data, weights, device and ``out``. Settings, classifiers and backbones are ranked on ``val``,
    or by folds of the training images where there is none; ``test`` is scored and ranks nothing. The best linear one
    is written to ``out`` as a finished run, whose network has it as its last layer.

    Returns ``rows`` (a classifier of a backbone each), ``saved`` (the row of the model), ``out``, and ``notes``.
    Raises UserError for a backbone or weights that do not fit, and for an ``out`` that is in use.
    """
    folder, device = RunFolder(Path(experiment.out)), choose_device(experiment.run.device)
    with ExitStack() as stack:
        stack.enter_context(run_lock(folder.path))
        check_free(folder, overwrite)
        started = time.perf_counter()
        data, best, rows = load_data(experiment.data), None, []
        if data.several:
            raise UserError("the probe is for one label an image, but the data have several; train on them instead")
        for name in backbones:
            found = probe_backbone(dataclasses.replace(experiment, backbone=name), data, device, progress)
            rows += found.rows()
            if best is None or found.held_out > best.held_out:  # the others are dropped: a network is large
                best = found
        if best is None:
            raise UserError("no backbone is named; name one or more, separated by commas")
        chosen = best.selection.best_linear
        saved = next(row for row in best.rows() if row["classifier"] == chosen.name)
        notes = [*data.notes, *best.notes]
        if best.selection.best.linear is None:
            notes.append(f"the nearest neighbour is better on held-out images, but no model file can hold it; "
                         f"saved is the {chosen.kind}")  # fmt: skip
        write(folder, dataclasses.replace(experiment, backbone=best.name), best, chosen, notes, device,
              time.perf_counter() - started)  # fmt: skip
    return {"rows": rows, "saved": saved, "out": str(folder.path), "notes": notes}


def probe_data(
    values: Mapping[str, Any],
    backbone: str,
    out: str | Path | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Probe the ``backbone`` names, separated by commas, on the data of the nested settings ``values``.

    The best one is saved to ``out``, ``runs/DATA-probe`` if not given. Returns what :func:`probe_backbones` does.
    Raises UserError for anything that cannot work.
    """
    remember_typed(backbone)
    names = [name.strip() for name in backbone.split(",") if name.strip()]
    experiment = build_experiment({**values, "method": "baseline", "out": "runs/probe"})
    if out is None:
        stem = f"runs/{Path(experiment.data.source).stem or 'data'}-probe"
        places = (Path(f"{stem}-{number}" if number > 1 else stem) for number in count(1))
        out = next(place for place in places if overwrite or not place.exists())
    return probe_backbones(dataclasses.replace(experiment, out=str(out)), names, overwrite=overwrite, progress=progress)


def check_free(folder: RunFolder, overwrite: bool) -> None:
    """Raises UserError if the folder holds a run and ``overwrite`` is false, or if it holds other files."""
    if folder.config.exists() and not overwrite:
        raise UserError(f"{folder.path} already holds a run; add --overwrite to replace it, or choose another --out")
    folder.check(resume=False, overwrite=overwrite)


def probe_backbone(experiment: Experiment, data: DataBundle, device: torch.device, progress: Progress) -> Probed:
    """The classifiers on the features of ``experiment.backbone`` with ``experiment.weights``."""
    started, name = time.perf_counter(), experiment.backbone
    network = build_network(name, len(data.classes), data.image_size, data.preprocess.channels)
    last_layer(network)
    assert experiment.weights is not None
    notes = [note for note in start_from(network, experiment.weights) if "classifier is new" not in note]
    data = normalised(data, experiment.data, name, experiment.weights)
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    labelled = {
        split: Labelled(
            pooled_features(
                network, data, split, device, workers=experiment.data.workers,
                progress=lambda share, split=split: progress(name, split, share),  # type: ignore[misc]
            ),
            images.labels,
        )
        for split, images in data.splits.items()
    }  # fmt: skip
    selection = fit_and_select(labelled["train"], labelled.get("val"), len(data.classes), data.train.groups)
    return Probed(name, network, data, labelled, selection, tuple(notes), time.perf_counter() - started)


def write(
    folder: RunFolder, experiment: Experiment, best: Probed, chosen: Fitted, notes: Sequence[str],
    device: torch.device, seconds: float,
) -> None:  # fmt: skip
    """Write the run of the ``chosen`` classifier of ``best``: configuration, division, model and summary."""
    assert chosen.linear is not None
    folder.begin(experiment)
    data = best.data
    if data.divided:
        write_division(data, folder.division)
    set_head(best.network, chosen.linear)
    save_model(
        best.network, folder.model,
        backbone_name=best.network.name if is_elsewhere(best.name) else best.name, classes=data.classes,
        **dataclasses.asdict(data.preprocess),
    )  # fmt: skip
    scores = {split: scores_of(chosen.linear, part) for split, part in best.labelled.items() if split != "train"}
    folder.write_summary(summarise_untrained(
        experiment, data.scored, scores, device, seconds,
        probe={"classifier": chosen.name, "chosen_by": best.selection.by,
               "scores": {split: {"top1": values["top1"]} for split, values in scores.items()}},
        deployed={"epoch": 0, "selected_on": "val" if best.selection.by == "val" else None},
        notes=[f"a probe: {chosen.name} on the frozen features of {best.name}; nothing was trained", *notes],
        classes=len(data.classes), image_size=data.image_size,
        splits={name: len(images) for name, images in data.splits.items()}, splits_digest=division_digest(data),
        parameters=sum(p.numel() for p in best.network.parameters()),
    ))  # fmt: skip


def scores_of(linear: Linear, data: Labelled) -> dict[str, float]:
    """Top-1, top-5 and loss as :class:`mixskd.tasks.classification.Classification` has them."""
    logits, labels = torch.from_numpy(linear.logits(data.features)), torch.from_numpy(data.labels).long()
    hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    top1, top5 = (round(100 * correct.double().mean().item(), 5) for correct in (hits[:, 0], hits.any(1)))
    return {"top1": top1, "top5": top5, "loss": F.cross_entropy(logits, labels).item()}
