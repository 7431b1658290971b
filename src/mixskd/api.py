"""Every verb as a function. torch is imported only when one is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixskd.config import merge, recipes
from mixskd.config.arguments import checked
from mixskd.config.build import build_experiment
from mixskd.config.conversion import convert
from mixskd.config.trusted_backbones import remember_typed
from mixskd.config.types import WholeNumber
from mixskd.errors import UserError

if TYPE_CHECKING:
    from mixskd.artifacts.model_file import Classifier
    from mixskd.backbones import StagedBackbone
    from mixskd.comparison.comparison import compare as compare
    from mixskd.comparison.search.tune import Found
    from mixskd.deploy.calibrating import calibrate as calibrate
    from mixskd.deploy.hub import push as push
    from mixskd.deploy.predicting import predict as predict
    from mixskd.evaluation.average import average as average
    from mixskd.evaluation.runner import run_suites as run_suites
    from mixskd.evaluation.split_scores import evaluate as evaluate
    from mixskd.training.listeners import Listener
    from mixskd.training.lr_finder import RangeTest

# Verbs whose own function takes the arguments that a person gives. Each is imported at its first use.
UNCHANGED = {
    "average": "mixskd.evaluation.average",
    "calibrate": "mixskd.deploy.calibrating",
    "compare": "mixskd.comparison.comparison",
    "evaluate": "mixskd.evaluation.split_scores",
    "predict": "mixskd.deploy.predicting",
    "push": "mixskd.deploy.hub",
    "run_suites": "mixskd.evaluation.runner",
}


def __getattr__(name: str) -> Any:
    if name not in UNCHANGED:
        raise AttributeError(f"module 'mixskd.api' has no attribute {name!r}")
    verb = globals()[name] = checked(getattr(importlib.import_module(UNCHANGED[name]), name))
    return verb


@checked
def benchmark(
    recipe: str | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    variants: str | None = None,
    rounds: int = 10,
    **settings: Any,
) -> dict[str, Any]:
    """Time the training step on this machine, each optimisation on and off; the report of ``mixskd benchmark --out``.

    Arguments as for :func:`train`; ``data="synthetic"`` needs none. Call it under ``if __name__ == "__main__"``, since
    each of the ``variants`` (comma-separated; all usual ones by default) starts its own processes. Raises UserError
    for anything that cannot work.
    """
    from mixskd.benchmarking.benchmark import benchmark as run

    experiment = build_experiment(_settings(recipe, data, backbone, method, weights, None, settings))
    return run(experiment, variants=variants, rounds=rounds)


@checked
def train(
    recipe: str | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    more_epochs: WholeNumber = 0,
    dry_run: bool = False,
    listeners: Sequence[Listener] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Train a classifier and return its summary; ``summary["out"]`` is the run's folder.

    ``data`` is a source, or settings of the group (``{"source": "photos", "image_size": 128}``); ``method`` likewise.
    ``settings`` are any others, by group (``run={"epochs": 3}``). They override those of ``recipe``: a name, ``auto``
    for one that fits the data, or None for the defaults of an Experiment. ``resume`` goes on with the run in ``out``,
    whose settings need not be given again; ``more_epochs`` are added to a finished one; ``overwrite`` removes it and
    begins anew. ``dry_run`` tries everything up to the first step and writes nothing; the dictionary then holds ``out``
    and, as ``plan``, what the run would do in lines. ``listeners`` are called at steps and epochs
    (:class:`mixskd.training.listeners.Listener`). Raises UserError for anything that cannot work.
    """
    from mixskd.training.listeners import Listener
    from mixskd.training.run import train as run

    if strange := [listener for listener in listeners if not isinstance(listener, Listener)]:
        raise TypeError(f"train() needs listeners as a list of Listener; one is of {type(strange[0]).__name__}")
    values = _settings(recipe, data, backbone, method, weights, out, settings)
    experiment = build_experiment(values, resume=resume or more_epochs > 0)
    return run(
        experiment, resume=resume, overwrite=overwrite, more_epochs=more_epochs, listeners=listeners, dry_run=dry_run
    )


@checked
def probe(
    data: str | Path | Mapping[str, Any],
    backbone: str,
    *,
    weights: str | Path = "pretrained",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, str, float], None] = lambda backbone, split, fraction: None,
    **settings: Any,
) -> dict[str, Any]:
    """Fit simple classifiers on the frozen features of backbones and save the best one as a finished run.

    ``data`` as for :func:`train`; ``backbone`` is a name, or several ones separated by commas. ``weights`` are
    ``pretrained``, a file, or a run's folder. ``settings`` are others of the groups ``data`` and ``run``. ``progress``
    is called with (backbone, split, fraction done). Returns what :func:`mixskd.evaluation.probe.probe_backbones` does.
    Raises UserError for anything that cannot work.
    """
    from mixskd.evaluation.probe import probe_data as run

    values = _settings(None, data, None, None, weights, None, settings)
    return run(values, backbone, out, overwrite=overwrite, progress=progress)


@checked
def export(
    path: str | Path,
    to: str | None = None,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    **options: Any,
) -> Path:
    """A trained classifier for use without mixskd, the file that was written; see
    :func:`mixskd.deploy.exporting.export`.

    ``options`` are the fields of :class:`mixskd.deploy.exports.formats.Options`, by name: ``input``, ``softmax``,
    ``temperature``, ``dynamic_size``, ``dtype``.
    """
    from mixskd.deploy.exporting import export as run
    from mixskd.deploy.exports.formats import Options

    chosen: Options = convert(options, Options)
    return run(path, to, out, options=chosen, data=_text(data), overwrite=overwrite, force=force).file


@checked
def tune(
    recipe: str | None = "auto",
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    **arguments: Any,
) -> Found:
    """Search for a method and settings within a budget.

    The first arguments are those of :func:`train`; by default the recipe is the one that fits the data. ``arguments``
    are those of :func:`mixskd.comparison.search.tune.tune`, and other settings by group.
    """
    from mixskd.comparison.search.tune import tune as run

    remember_typed(arguments.get("backbones"))
    own = {name: arguments.pop(name) for name in list(signature(run).parameters)[1:] if name in arguments}
    return checked(run)(build_experiment(_settings(recipe, data, backbone, method, weights, None, arguments)), **own)


@checked
def find_lr(
    recipe: str | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    out: str | Path = "lr.png",
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 10.0,
    **settings: Any,
) -> RangeTest:
    """Suggest a learning rate by a range test; see :func:`mixskd.training.lr_finder.find_lr`. Arguments as for
    :func:`train`.
    """
    from mixskd.training.lr_finder import find_lr as run

    experiment = build_experiment(_settings(recipe, data, backbone, method, weights, None, settings))
    return run(experiment, out, steps=steps, lowest=lowest, highest=highest)


@checked
def report(
    runs: str | Path | Sequence[str | Path], out: str | Path = "report.html", *, figures: str | Path | None = None
) -> Path:
    """One HTML file that shows finished runs; see :func:`mixskd.reporting.page.report.write_report`."""
    from mixskd.reporting.page.report import write_report as run

    return run([runs] if isinstance(runs, str | Path) else runs, out, figures=figures)


@checked
def show_data(
    recipe: str | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    out: str | Path = "data.png",
    images: int = 8,
    **settings: Any,
) -> Path:
    """A picture of what the network will see; see :func:`mixskd.reporting.show_data.show_data`. Arguments as for
    :func:`train`.
    """
    from mixskd.reporting.show_data import show_data as run

    experiment = build_experiment(_settings(recipe, data, backbone, method, weights, None, settings))
    return run(experiment, out, images=images)


@checked
def load(path: str | Path) -> Classifier:
    """A trained classifier, in evaluation mode; see :func:`mixskd.artifacts.model_file.load_model`."""
    from mixskd.artifacts.model_file import load_model

    return load_model(path)


@checked
def save_model(
    backbone: StagedBackbone,
    path: str | Path,
    *,
    classes: Sequence[str],
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize: str = "",
    range: Sequence[float] | None = None,
    thresholds: Sequence[float] = (),
) -> Path:
    """Write the classifier of a training loop of one's own as a model file, which every verb here takes; its path.

    ``backbone`` is that of a method (``method.backbone``), made by ``mixskd.build_backbone``; ``classes`` are the names
    of its outputs, in order; ``image_size`` in pixels; ``mean`` and ``std`` of the channels of images in [0, 1], as the
    training images were normalised; ``resize`` is ``crop``, ``pad`` or ``squash``, by the image size if not given;
    ``range`` are the values of the images that become 0 and 1, if not 0 and 255. Where an image may have several
    labels, ``thresholds`` are the probabilities from which each class is named. A folder as ``path`` gets
    ``model.safetensors``. Raises UserError if the classes are not as many as the outputs.
    """
    from mixskd.artifacts.model_file import save_model as save
    from mixskd.backbones import StagedBackbone

    if not isinstance(backbone, StagedBackbone):
        raise TypeError(f"save_model() needs backbone as StagedBackbone, not {type(backbone).__name__}")
    if len(classes) != backbone.num_classes:
        raise UserError(f"the classifier has {backbone.num_classes} outputs, but {len(classes)} classes are named")
    if not backbone.in_channels == len(mean) == len(std):
        raise UserError(f"the classifier takes {backbone.in_channels} channels; give mean and std as many numbers")
    target = Path(path)
    target = target / "model.safetensors" if target.is_dir() or not target.suffix else target
    save(
        backbone, target, backbone_name=backbone.name, classes=classes, image_size=image_size, mean=mean, std=std,
        resize=resize, range=range, thresholds=thresholds,
    )  # fmt: skip
    return target


def _settings(
    recipe: str | None,
    data: str | Path | Mapping[str, Any] | None,
    backbone: str | None,
    method: str | Mapping[str, Any] | None,
    weights: str | Path | None,
    out: str | Path | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    groups = {
        "data": _text(data) if isinstance(data, Path) else data,
        "backbone": backbone,
        "method": method,
        "weights": _text(weights),
        "out": _text(out),
    }
    remember_typed(backbone)
    given = merge({**settings, **{key: value for key, value in groups.items() if value is not None}})
    if recipe == "auto":
        recipe = recipes.fitting(given.get("data", {}).get("source"), given.get("weights"))
    return merge(recipes.load(recipe) if recipe else {}, given)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
