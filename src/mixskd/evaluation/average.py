"""``mixskd average``: several runs as one model, by the mean of their probabilities or of their weights."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from mixskd.artifacts.model_file import Classifier, load_model, save_model
from mixskd.artifacts.results import Result, deployed_scores, read_result
from mixskd.backbones import StagedBackbone
from mixskd.backbones.ensemble import Ensemble, ensemble_name
from mixskd.config import MethodChoice
from mixskd.config.trusted_backbones import is_elsewhere
from mixskd.data import make_test_loader
from mixskd.errors import UserError
from mixskd.evaluation.probe import check_free
from mixskd.evaluation.runner import check_distinct
from mixskd.evaluation.split_scores import evaluation_data
from mixskd.runtime.precision import choose_device
from mixskd.tasks.labels import task_of
from mixskd.tasks.scoring import metric_values
from mixskd.training.run_folder import RunFolder
from mixskd.training.run_lock import run_lock
from mixskd.training.summary import summarise_untrained

BATCH = 256  # images at a time
STATISTICS = ("running_mean", "running_var")  # of a batch norm


def average(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    weights: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Write the mean of finished ``runs`` to the folder ``out`` as a finished run, which every verb takes.

    The mean is that of their probabilities: one prediction then costs as much as those of all runs together. With
    ``weights`` it is that of their weights, at the cost of one run (model soups, Wortsman et al., 2022); the runs must
    have one backbone and have started from the same weights. The running means and variances of batch norms are then
    computed anew on the training images, unless all runs have the same ones. Temperatures and thresholds of the runs
    are left out; the thresholds of several labels an image are fitted on ``val``, or averaged where there is none.

    Returns ``out``, ``runs`` (``run`` and ``scores`` each), ``scores`` by split, ``networks`` (what a prediction costs)
    and ``notes``. Raises UserError for fewer than two runs, and for runs whose classes, preprocessing or images of
    each split differ.
    """
    started, where, folder = time.perf_counter(), choose_device(device), RunFolder(Path(out))
    results, members = read_runs(runs)
    first, model = results[0], members[0]
    names = [result.experiment.backbone for result in results]
    names = [m.name if is_elsewhere(name) else name for name, m in zip(names, members, strict=True)]
    listed = ", ".join(result.name for result in results)
    with run_lock(folder.path):
        check_free(folder, overwrite)
        if any(folder.path.resolve() == result.folder.resolve() for result in results):
            raise UserError(f"{folder.path} is one of the runs; choose another --out")
        notes = [f"the mean of the {'weights' if weights else 'probabilities'} of {listed}; nothing was trained"]
        network: StagedBackbone
        if weights:
            name = names[0]
            check_one_start(results, names)
            network, again = mean_of_weights(members)
            if again:
                bundle, config = evaluation_data(first.folder, model, None, "train", verify=False)
                train = make_test_loader(bundle, where, split="train", workers=config.workers, batch_size=BATCH)
                update_bn(whole_batches(train), network.to(where), where)
                notes.append("the statistics of the batch norms were computed anew on the training images")
        else:
            name = ensemble_name(names, several=model.task == "multilabel")
            network = Ensemble(members, name)
            notes.append(f"a prediction costs as much as those of the {len(members)} runs together")
        bundle, config = evaluation_data(first.folder, model, None)
        network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        task = task_of(model)
        task.thresholds = [sum(x) / len(members) for x in zip(*(m.thresholds for m in members), strict=True)]
        scores: dict[str, Mapping[str, float]] = {}
        for split in (split for split in ("val", "test") if split in bundle.splits):
            loader = make_test_loader(bundle, where, split=split, workers=config.workers, batch_size=BATCH)
            found = metric_values(network, loader, task, where)
            if split == "val" and task.fits:
                task.fit(found)
                found = metric_values(network, loader, task, where)
            scores[split] = task.scores(found)
        experiment = dataclasses.replace(
            first.experiment, backbone=name, method=MethodChoice("baseline"), weights=f"mean of {listed}",
            out=str(folder.path),
        )  # fmt: skip
        folder.begin(experiment)
        if (division := RunFolder(first.folder).division).exists():
            shutil.copyfile(division, folder.division)
        save_model(
            network, folder.model, backbone_name=name, classes=model.classes, thresholds=task.thresholds,
            **dataclasses.asdict(model.preprocess),
        )  # fmt: skip
        kept = {"task", "classes", "image_size", "splits", "splits_digest"} & first.summary.keys()
        folder.write_summary(summarise_untrained(
            experiment, bundle.scored, scores, where, time.perf_counter() - started, notes=notes,
            parameters=sum(p.numel() for p in network.parameters()), **{key: first.summary[key] for key in kept},
        ))  # fmt: skip
    of_runs = [{"run": str(r.folder), "scores": dict(deployed_scores(r.summary)[1])} for r in results]
    networks = 1 if weights else len(members)
    return {"out": str(folder.path), "runs": of_runs, "scores": scores, "networks": networks, "notes": notes}


def read_runs(runs: Sequence[str | Path]) -> tuple[list[Result], list[Classifier]]:
    """The finished runs and their classifiers. Raises UserError for runs that cannot be averaged."""
    places = [Path(run) for run in runs]
    if len(places) < 2:
        raise UserError("an average needs two runs or more; name their folders")
    check_distinct(places)
    if odd := next((place for place in places if not place.is_dir()), None):
        raise UserError(f"there is no folder {odd}; give the folders of finished runs")
    results = [read_result(place) for place in places]
    if other := next((r for r in results if r.kind is not None and r.kind.networks), None):
        raise UserError(f"{other.folder} is no classifier; only classifiers can be averaged")
    members = [load_model(place) for place in places]
    first, model = results[0], members[0]
    for result, member in zip(results[1:], members[1:], strict=True):
        what = next((what for what, mine, theirs in (
            ("classes", model.classes, member.classes),
            ("numbers of labels an image", model.task, member.task),
            ("image sizes", model.image_size, member.image_size),
            ("means, deviations or resizing of its images", model.preprocess, member.preprocess),
            ("images in its splits, so that none is held out from both", images_of(first), images_of(result)),
        ) if mine != theirs), None)  # fmt: skip
        if what:
            raise UserError(f"{first.folder} and {result.folder} cannot be averaged: the one has other {what}")
    return results, members


def images_of(result: Result) -> tuple[Any, ...]:
    """A key of the images in each split of a run."""
    source, s = Path(result.experiment.data.source).expanduser(), result.summary
    return source.resolve(), s.get("splits_digest"), sorted(s.get("splits") or ())


def check_one_start(results: Sequence[Result], names: Sequence[str]) -> None:
    """Raises UserError unless the runs have one backbone and started from the same weights."""
    if len(set(names)) > 1:
        raise UserError(f"a mean of weights needs one backbone, but there are: {', '.join(sorted(set(names)))}; "
                        "leave --weights out for the mean of probabilities")  # fmt: skip
    starts = {str(result.experiment.weights or "random weights") for result in results}
    if len(starts) > 1 or results[0].experiment.weights is None:
        began = " and ".join(sorted(starts))
        raise UserError(f"a mean of weights needs runs from the same weights, and these began at {began}; "
                        "leave --weights out for the mean of probabilities")  # fmt: skip


def mean_of_weights(members: Sequence[Classifier]) -> tuple[Classifier, bool]:
    """The first of ``members`` with the mean of all weights (taken in float64), and whether batch norms' statistics
    differ among the members, so that they must be computed anew. Whole numbers stay those of the first.
    """
    states = [member.export_state_dict() for member in members]
    mean: dict[str, Tensor] = {
        key: torch.stack([state[key].double() for state in states]).mean(0).to(x.dtype) if x.is_floating_point() else x
        for key, x in states[0].items()
    }
    own = [key for key in mean if key.endswith(STATISTICS)]
    differ = any(not torch.equal(state[key], states[0][key]) for key in own for state in states[1:])
    members[0].load_export_state_dict(mean)
    return members[0], differ


def whole_batches(loader: Any) -> Iterator[Tensor]:
    """The images of ``loader`` without a last batch that is smaller than the first: of one image there is no variance,
    and every batch has the same share in the statistics.
    """
    size = 0
    for images, _ in loader:
        size = size or len(images)
        if len(images) == size:
            yield images
