"""Runs suites on trained runs and writes each result to RUN/evaluation/NAME.json."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mixskd.artifacts.model_file import Classifier, load_model
from mixskd.config import DataConfig
from mixskd.data import DataBundle, load_data, make_test_loader
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError, check_positive
from mixskd.evaluation.base import Batches, Context, Evaluator, Outputs
from mixskd.evaluation.corruptions.published import PublishedFiles
from mixskd.evaluation.split_scores import chosen_split, data_of, evaluation_data
from mixskd.evaluation.suites import SUITES, build_suite
from mixskd.methods.parts.own_view import OwnView
from mixskd.runtime.json_file import write_json
from mixskd.runtime.precision import choose_device, device_name, full_fp32

T = TypeVar("T")
Progress = Callable[[str, str, float], None]
"""Called with (run, suite, fraction done)."""


MULTILABEL_SUITES = ("accuracy",)  # for classifiers of several labels an image


@dataclass
class Run:
    """A trained classifier and its data, which are read on first use.

    Runs with the same dictionary ``opened`` share data that are the same, and the outputs of models for them.
    """

    name: str
    path: Path
    device: torch.device
    data: str | None
    split: str | None
    batch_size: int
    opened: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def model(self) -> Classifier:
        model = load_model(self.path)
        return model.to(self.device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload, no-any-return]

    @cached_property
    def bundle(self) -> tuple[DataBundle, DataConfig]:
        return self._shared("data", lambda: self._read("train" if self.split == "train" else None))

    def _read(self, split: str | None) -> tuple[DataBundle, DataConfig]:
        return evaluation_data(self.path, self.model, self.data, split)

    @cached_property
    def _division(self) -> Hashable:
        """Key of the data: runs with equal keys get the same images, preprocessed alike."""
        config, division = data_of(self.path, self.data)
        return config, division and division.read_bytes(), self.model.preprocess, self.model.classes

    def _shared(self, what: str, make: Callable[[], T]) -> T:
        """The object ``what`` for these data from :attr:`opened`, made at the first call."""
        key = what, self._division
        if key not in self.opened:
            self.opened[key] = make()
        found: T = self.opened[key]
        return found

    @cached_property
    def scored(self) -> str:
        """The name of the split that is evaluated."""
        return chosen_split(self.bundle[0], self.split)

    def loader(self, split: str, most: int = 0, seed: int = 0) -> Batches:
        """The images of ``split``, without augmentation; a seeded choice of ``most`` of them if that is not 0."""
        bundle, config = self.bundle
        if split not in bundle.splits:
            bundle, config = self._read(split)
        if split not in bundle.splits:
            raise UserError(f"{config.source} has no split {split!r}, which this suite needs; give data that have one")
        total = len(bundle.splits[split])
        if 0 < most < total:  # only these are decoded
            few = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:most].sort().values
            bundle = dataclasses.replace(bundle, splits={split: bundle.splits[split].subset(few.numpy())})
        return make_test_loader(bundle, self.device, split=split, workers=config.workers, batch_size=self.batch_size)

    @cached_property
    def test(self) -> Batches:
        return self._shared("test", lambda: self.loader(self.scored))

    @cached_property
    def val(self) -> Batches | None:
        has = "val" in self.bundle[0].splits and self.scored != "val"
        return self._shared("val", lambda: self.loader("val")) if has else None

    @property
    def folder(self) -> Path:
        """Where results are written."""
        return (self.path if self.path.is_dir() else self.path.parent) / "evaluation"

    def other_bundle(self, source: str) -> DataBundle:
        """The data set ``source``, preprocessed as this model expects. Raises UserError if it cannot be."""
        sized = Path(source).expanduser().exists() and Path(source).suffix != ".npz"
        p = self.model.preprocess
        config = DataConfig(source, image_size=p.image_size if sized else None, channels=p.channels, range=p.range)
        return self._shared(f"other data {source}", lambda: dataclasses.replace(load_data(config), preprocess=p))

    def other_data(self, source: str) -> dict[str, Batches]:
        """The training and test images of the data set ``source``, preprocessed as this model expects."""
        bundle = self.other_bundle(source)
        names = {"train": "train", "test": chosen_split(bundle, None)}
        return {
            key: make_test_loader(bundle, self.device, split=name, batch_size=self.batch_size)
            for key, name in names.items()
            if name in bundle.splits
        }


@full_fp32()
def run_suites(
    runs: Sequence[str | Path],
    suites: Sequence[str] | str,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    data: str | Path | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = lambda run, suite, share: None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of ``suites`` on every run, by the run's name and the suite's; each is also written to its folder.

    Args:
        runs: folders of finished runs, or model files (which need ``data``).
        suites: names of :data:`mixskd.evaluation.suites.SUITES`, or ``all`` for those that have what they need, without
            ``corruption``.
        options: of each suite, by its name, typed or as text.
        data: another data set with the same classes; that of each run if None.
        split: ``train``, ``val`` or ``test``; ``test`` where there is one if None, else ``val``.
        batch_size: images at a time. If None, 64 on a CPU, whose caches hold no more, else 256.
        seed: seed of all random numbers.
        device: as ``run.device``.

    Raises UserError if anything is missing: a run, a second run for ``confidence``, a validation split, other data.
    """
    where = choose_device(device)
    batch_size = (64 if where.type == "cpu" else 256) if batch_size is None else batch_size
    check_positive(batch_size=batch_size)
    opened = open_runs(runs, where, None if data is None else str(data), split, batch_size)
    evaluators = choose_suites(suites, options or {}, len(opened))
    usable = {
        run.name: [s for s in evaluators if not run.model.thresholds or s.name in MULTILABEL_SUITES] for run in opened
    }
    if suites != "all" and (odd := next((run for run in opened if usable[run.name] != evaluators), None)):
        strange = next(one.name for one in evaluators if one not in usable[odd.name])
        raise UserError(
            f"the suite {strange} is for one label an image, but {odd.name} names several; "
            f"use {', '.join(MULTILABEL_SUITES)}"
        )
    check_images([suite.name for suite in evaluators], {run.name: run.model.preprocess for run in opened})
    for run in opened:
        for suite in usable[run.name]:
            check_fits(suite, run, opened)
    results: dict[str, dict[str, dict[str, Any]]] = {run.name: {} for run in opened}
    known: dict[tuple[int, int], Outputs] = {}
    shared: dict[str, dict[str, Any]] = {}
    own_features = any(suite.name == "features" and not getattr(suite, "data", "") for suite in evaluators)
    for run in opened:
        images = run.bundle[0].splits[run.scored]
        context = Context(
            device=run.device, seed=seed, mean=run.model.mean, std=run.model.std, split=run.scored, name=run.name,
            classes=run.model.classes, paths=() if images.in_memory else [str(image) for image in images.images],
            thresholds=run.model.thresholds, keep_features=own_features, known=known,
        )  # fmt: skip
        for suite in usable[run.name]:
            if suite.name in shared:
                result = of_run(shared[suite.name], run)
            else:
                ready = prepared(suite, run, opened, context)
                ready = dataclasses.replace(ready, progress=partial(progress, run.name, suite.name))
                result = {**suite(run.model, run.test, ready), **about(run)}
            if suite.name == "confidence":  # one result on all runs
                shared[suite.name] = result
            progress(run.name, suite.name, 1.0)
            write_json(run.folder / f"{suite.name}.json", {"format": "mixskd-suite-2", **result})
            results[run.name][suite.name] = result
        for key, output in list(known.items()):  # no later run needs these
            if output.source[0] is run.model or isinstance(output.source[0], OwnView):
                del known[key]
    return results


def open_runs(
    paths: Sequence[str | Path], device: torch.device, data: str | None, split: str | None, batch_size: int
) -> list[Run]:
    """The runs at ``paths`` with distinct names. Raises UserError for no path, or one that is named twice."""
    places = [Path(path) for path in paths]
    if not places:
        raise UserError("no run is named; give the folder of a finished run")
    check_distinct(places)
    names = [p.resolve().name for p in places]
    names = [name if names.count(name) == 1 else str(place) for name, place in zip(names, places, strict=True)]
    common: dict[Hashable, Any] = {}
    return [Run(n, p, device, data, split, batch_size, common) for n, p in zip(names, places, strict=True)]


def check_distinct(places: Sequence[Path]) -> None:
    """Raises UserError if one of the runs at ``places`` is named twice."""
    resolved = [place.resolve() for place in places]
    if twice := next((place for i, place in enumerate(places) if resolved[i] in resolved[:i]), None):
        raise UserError(f"{twice} is named twice; name each run once")


def choose_suites(names: Sequence[str] | str, options: Mapping[str, Mapping[str, Any]], runs: int) -> list[Evaluator]:
    """The suites of ``names`` with their ``options``. Raises UserError for one that needs more runs."""
    chosen = [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else list(names)
    if chosen == ["all"]:
        chosen = [n for n in SUITES if n != "corruption" and (n != "confidence" or runs > 1)]
        chosen = [n for n in chosen if n != "ood" or options.get("ood", {}).get("data")]
    if not chosen:
        raise UserError(f"no suite is named; choose from {', '.join(SUITES)}, or all")
    suites = [build_suite(name, options.get(name)) for name in dict.fromkeys(chosen)]
    if unused := next((name for name in options if name not in chosen), None):
        build_suite(unused, options[unused])
        raise UserError(f"there are options for the suite {unused}, which is not run; add it to the suites")
    if "confidence" in chosen and runs < 2:
        raise UserError("the suite confidence compares two or more runs; name another one")
    if "ood" in chosen and not options.get("ood", {}).get("data"):
        raise UserError("the suite ood needs another data set; name one with --ood.data")
    return suites


def check_images(suites: Iterable[str], runs: Mapping[str, Preprocess]) -> None:
    """Raises UserError for one of ``suites`` that cannot take the images of one of ``runs``."""
    if "corruption" in suites and (odd := next((name for name, p in runs.items() if not p.rgb), None)):
        raise UserError(f"the suite corruption is for RGB images of 8 bits, and {odd} takes others")


def check_fits(suite: Evaluator, run: Run, runs: Sequence[Run]) -> None:
    """Raises UserError if other runs or other data that ``suite`` needs have images that ``run`` does not take."""
    if suite.name == "confidence":
        for other in runs:
            comparable(other, run)
    if source := getattr(suite, "data", ""):
        run.other_bundle(source)


def prepared(suite: Evaluator, run: Run, runs: Sequence[Run], context: Context) -> Context:
    """``context`` with the further data and models that ``suite`` needs."""
    more: dict[str, Any] = {}
    if suite.name == "calibration":
        more["val"] = run.val
    if folder := getattr(suite, "files", ""):
        more["corrupted"] = PublishedFiles(Path(folder).expanduser(), run.model, run.device, run.batch_size)
    if suite.name == "confidence":
        more["others"] = {other.name: comparable(other, run) for other in runs if other is not run}
    if other := getattr(suite, "data", ""):
        more |= {"other_data": run.other_data(other), "other_name": other}
    elif suite.name == "features":
        more["train"] = run.loader("train", getattr(suite, "max_train", 0), context.seed)
    return dataclasses.replace(context, **more)


def comparable(other: Run, run: Run) -> nn.Module:
    """The model of ``other`` for the images of ``run``. Raises UserError if it takes others."""
    theirs, ours = other.model, run.model
    if theirs.classes != ours.classes:
        raise UserError(
            f"{other.name} has other classes ({len(theirs.classes)}) than {run.name} ({len(ours.classes)}); "
            "compare runs of one data set"
        )
    if theirs.image_size != ours.image_size:
        raise UserError(f"{other.name} takes images of {theirs.image_size} px and {run.name} of {ours.image_size} px")
    a, b = theirs.preprocess, ours.preprocess
    if (a.channels, a.range) != (b.channels, b.range):
        raise UserError(f"{other.name} and {run.name} take images of other channels or another data.range")
    given, wanted = (ours.mean, ours.std), (theirs.mean, theirs.std)
    return theirs if given == wanted else OwnView(theirs, given, wanted, theirs.image_size).to(run.device)


def of_run(result: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The shared ``result`` of ``confidence`` with the headline of ``run``."""
    value = result["models"][run.name]["predicted"]["mean"]
    return {**result, "headline": {**result["headline"], "value": value}, **about(run)}


def about(run: Run) -> dict[str, Any]:
    """The run, backbone, data and device of a result."""
    source = run.data or run.bundle[1].source
    return {"run": run.name, "backbone": run.model.name, "data": source, "device": device_name(run.device)}
