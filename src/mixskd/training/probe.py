"""The probe of a run that starts from weights: its scores, and classifiers initialised with it."""

from typing import Any

from mixskd.errors import UserError
from mixskd.probing.classifiers import Linear
from mixskd.probing.features import last_layer, pooled_features
from mixskd.probing.head import start_heads
from mixskd.probing.selection import Labelled, Selection, fit_and_select
from mixskd.tasks.classification import Classification
from mixskd.training.factory import Parts

MOST = 5000  # images that every run may pass through the network for a line of information


def probe_at_start(parts: Parts) -> None:
    """Fit the probe of a run that starts from weights, before its first step.

    It is stored as ``parts.probe``, unless ``run.probe`` is ``never`` or there are more than ``MOST`` images. With
    ``optim.head_start`` ``probe`` the classifiers of the method begin as the logistic regression. The first process
    computes for all. Raises UserError for a head start that is not possible.
    """
    experiment = parts.experiment
    wanted = experiment.optim.head_start == "probe"
    if wanted and parts.data.several:
        raise UserError("optim.head_start probe is for one label an image, but the data have several; leave it out")
    if experiment.weights is None or not isinstance(parts.task, Classification):
        return
    asked = experiment.run.probe == "auto"
    images = sum(map(len, parts.data.splits.values()))
    if asked and images > MOST and not wanted:
        parts.notes.append(f"no probe was fitted, since {images:,} images would have to pass; mixskd probe fits one")
        asked = False
    if not (asked or wanted):
        return
    found: tuple[dict[str, Any] | None, Linear | None] | str = (None, None)
    if parts.world.first:
        try:
            found = _fit(parts, asked)
        except UserError as error:
            found = str(error)
    found = parts.world.same(found)
    if isinstance(found, str):
        if wanted:
            raise UserError(found)
        parts.notes.append(f"no probe was fitted: {found}")
        return
    parts.probe, linear = found
    if wanted and linear is not None:
        start_heads(parts.step.method, linear)


def _fit(parts: Parts, scored: bool) -> tuple[dict[str, Any] | None, Linear | None]:
    """The probe as a summary has it, if it is to be ``scored``, and the logistic regression."""
    backbone, data = parts.step.method.backbone, parts.data
    last_layer(backbone)
    splits = [name for name in data.splits if scored or name != "test"]
    labelled = {
        name: Labelled(
            pooled_features(backbone, data, name, parts.device, workers=parts.experiment.data.workers),
            data.splits[name].labels,
        )
        for name in splits
    }
    selection = fit_and_select(labelled["train"], labelled.get("val"), len(data.classes), data.train.groups)
    return (described(selection, labelled) if scored else None), selection.logistic.linear


def described(selection: Selection, labelled: dict[str, Labelled]) -> dict[str, Any]:
    """Plain values: the best classifier, what chose it, and ``scores`` of it on each split but ``train``."""
    best = selection.best
    scores = {name: {"top1": round(best.top1(data), 5)} for name, data in labelled.items() if name != "train"}
    return {"classifier": best.name, "chosen_by": selection.by, "scores": scores}


def probe_line(probe: dict[str, Any]) -> str:
    """The probe in a line for a person."""
    scores = " and ".join(f"{values['top1']:.2f} % on {split}" for split, values in probe["scores"].items())
    return f"probe: {scores} without training ({probe['classifier']}, chosen on {probe['chosen_by']})"


def below_probe(probe: dict[str, Any] | None, scores: dict[str, Any]) -> str | None:
    """A warning if the trained network is below the probe on ``test``, or on ``val`` where there is no ``test``."""
    if probe is None:
        return None
    split = "test" if "test" in scores else "val"
    before, after = probe["scores"][split]["top1"], scores[split]["top1"]
    if after >= before:
        return None
    return (
        f"the trained network is below its probe: {after:.2f} % and {before:.2f} % on {split}; use mixskd probe, or "
        "train with --optim.head-start probe, a smaller --optim.lr or --optim.norms frozen"
    )
