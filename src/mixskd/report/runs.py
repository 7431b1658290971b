"""Finished runs read back from their folders, and put together by all that they share but the seed."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mixskd.config import NOT_COMPARED, Experiment, flatten, from_dict, read_yaml, to_dict
from mixskd.errors import UserError
from mixskd.files import slug
from mixskd.methods import method_class, with_all_options
from mixskd.report.cost import Cost, classes_from, count_cost
from mixskd.report.stored import read_summary
from mixskd.tasks.kinds import Kind, kind_of

# A run's own, whatever the setting that it repeats.
OF_A_RUN = (*NOT_COMPARED, "run.seed", "method.teacher")


@dataclass(frozen=True)
class Result:
    """One finished run: its experiment and its summary."""

    name: str
    experiment: Experiment
    summary: dict[str, Any]
    folder: Path = Path()

    @property
    def label(self) -> str:
        """The run's name without backbone, augmentation policy and seed."""
        e, label = self.experiment, self.name.removesuffix(f"-seed{self.experiment.run.seed}")
        if self.kind is not None:
            label = re.sub(r"-from\d+$", "", label)  # the seed of its backbone
        for part in (e.data.augment, slug(e.backbone)):
            label = label.removesuffix(f"-{part}")
        return label

    @property
    def kind(self) -> Kind | None:
        """What it is trained for, if that is not classification."""
        return kind_of(self.experiment.method.name)

    @property
    def score(self) -> float | None:
        """The main score of what is deployed, in per cent: top-1, AP or mIoU; None if its data cannot give one."""
        return deployed_scores(self.summary)[1].get("top1" if self.kind is None else self.kind.monitor)

    @property
    def split(self) -> str:
        """The split of :attr:`top1`: ``test`` where there is one, else ``val``."""
        return deployed_scores(self.summary)[0]

    @property
    def top1(self) -> float:
        """Top-1 of the deployed classifier, in per cent."""
        return float(deployed_scores(self.summary)[1]["top1"])

    @property
    def best(self) -> dict[str, Any]:
        """The epoch with the highest top-1 of those that were scored: ``epoch``, ``split`` and ``top1``."""
        return best_epoch(self.summary)

    def setting(self) -> dict[str, Any]:
        """What the run shares with its repetitions, by dotted name."""
        flat = flatten(to_dict(self.experiment))
        setting = {key: value for key, value in flat.items() if key not in OF_A_RUN}
        if self.experiment.weights is not None:  # backbones of several seeds are repetitions too
            setting["weights"] = re.sub(r"-seed\d+/?$", "", self.experiment.weights)
        return setting


@dataclass(frozen=True)
class Repeated:
    """The runs of one setting with several seeds; a line of the table."""

    label: str
    results: tuple[Result, ...]

    @property
    def experiment(self) -> Experiment:
        return self.results[0].experiment

    @property
    def kind(self) -> Kind | None:
        """What the runs are trained for, if that is not classification."""
        return self.results[0].kind

    @cached_property
    def cost(self) -> Cost:
        """What the method costs at these images and classes; of a classifier."""
        method_class(self.experiment.method.name)  # one of a plugin that is gone is named before anything is built
        first = self.results[0].summary
        classes = first.get("classes") or classes_from(first["parameters"], self.experiment)
        size = first.get("image_size") or self.experiment.data.image_size
        return count_cost(self.experiment, classes, size)

    def mean(self, key: str) -> float:
        """The mean of a number in the summaries."""
        return statistics.fmean(result.summary[key] for result in self.results)


def deployed_scores(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """The split and the scores of the deployed classifier: on ``test`` where there is one, else on ``val``.

    Summaries of the first format have those after the last epoch, on ``test``.
    """
    if "scores" not in summary:
        return "test", summary["last"]
    split = "test" if "test" in summary["scores"] else "val"
    return split, summary["scores"][split]


def best_epoch(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The epoch with the highest score: ``epoch``, ``split``, ``top1``."""
    return summary["best"] if "best" in summary else {"split": "test", **summary["best_on_test"]}


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (ddof 1), which one value alone does not have."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def read_results(folder: Path) -> list[Result]:
    """The finished runs in ``folder``, by name. Raises UserError if there is none."""
    found = sorted(folder.glob("*/summary.json"))
    results = [read_result(path.parent) for path in found if path.with_name("config.yaml").exists()]
    if not results:
        raise UserError(f"there is no finished run in {folder}")
    return results


def read_result(folder: Path) -> Result:
    """The finished run in ``folder``. Raises UserError for a summary or a configuration that is none."""
    path, config = folder / "summary.json", folder / "config.yaml"
    if not config.exists():
        raise UserError(f"{folder} has no config.yaml; it is not a run of mixskd")
    experiment = _experiment(config)
    summary = read_summary(path, classifier=kind_of(experiment.method.name) is None)
    return Result(folder.resolve().name, experiment, summary, folder)


def _experiment(config: Path) -> Experiment:
    try:
        experiment = from_dict(read_yaml(config))
    except UserError as error:
        if str(config) in str(error):
            raise
        raise UserError(f"{config} is not the configuration of a run: {error}") from None
    try:
        return with_all_options(experiment)
    except UserError:  # a method of a plugin that is gone, or an option that was removed
        return experiment


def put_together(results: Iterable[Result], labels: Mapping[str, str] | None = None) -> list[Repeated]:
    """One line for each setting, in the order of ``labels`` (from folder names to labels), then as they come.

    Settings that share a label are distinguished by what differs.
    """
    labels = labels or {}
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = json.dumps([result.label, result.setting()], sort_keys=True)
        groups.setdefault(key, []).append(result)
    lines = [Repeated(labels.get(group[0].label, group[0].label), tuple(group)) for group in groups.values()]
    order = list(labels.values())
    lines.sort(key=lambda line: order.index(line.label) if line.label in order else len(order))
    return [Repeated(_told_apart(line, lines), line.results) for line in lines]


def _told_apart(line: Repeated, lines: Sequence[Repeated]) -> str:
    def place(other: Repeated) -> tuple[str, str, str]:
        return other.label, other.experiment.backbone, other.experiment.data.augment

    settings = [other.results[0].setting() for other in lines if place(other) == place(line)]
    own = line.results[0].setting()
    differing = [key for key in own if any(setting.get(key) != own[key] for setting in settings)]
    shown = ", ".join(f"{key} {own[key]}" for key in differing)
    return f"{line.label} ({shown})" if shown else line.label
