"""Group finished runs by setting: the runs of a group differ only in their seed."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mixskd.artifacts.results import Result
from mixskd.benchmarking.cost import Cost, classes_from, count_cost
from mixskd.config import Experiment
from mixskd.config.task_kinds import Kind
from mixskd.methods import method_class


@dataclass(frozen=True)
class Repeated:
    """The runs of one setting with several seeds; one line of a table."""

    label: str
    results: tuple[Result, ...]

    @property
    def experiment(self) -> Experiment:
        return self.results[0].experiment

    @property
    def kind(self) -> Kind | None:
        """The task of the runs; None for classification."""
        return self.results[0].kind

    @cached_property
    def cost(self) -> Cost:
        """FLOPs and parameters of the classifier, deployed and in training."""
        method_class(self.experiment.method.name)  # raises UserError for a method of a missing plugin
        first = self.results[0].summary
        classes = first.get("classes") or classes_from(first["parameters"], self.experiment)
        size = first.get("image_size") or self.experiment.data.image_size
        return count_cost(self.experiment, classes, size)

    @property
    def seeds(self) -> str:
        """The seeds of the runs, separated by commas."""
        return ", ".join(str(seed) for seed in sorted({result.experiment.run.seed for result in self.results}))

    def mean(self, key: str) -> float:
        """The mean of a number in the summaries."""
        return statistics.fmean(result.summary[key] for result in self.results)


def of_kind(lines: Iterable[Repeated], kind: Kind | None) -> list[Repeated]:
    """The lines of this kind of task; None for classifiers."""
    return [line for line in lines if line.kind is kind]


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (ddof 1), which one value alone does not have."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def put_together(results: Iterable[Result], labels: Mapping[str, str] | None = None) -> list[Repeated]:
    """One line for each setting, in the order of ``labels`` (labels by folder name), then in the order of ``results``.

    Where settings share a label, the values that differ are added to it.
    """
    labels = labels or {}
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = json.dumps([result.label, result.setting()], sort_keys=True)
        groups.setdefault(key, []).append(result)
    lines = [Repeated(labels.get(group[0].label, group[0].label), tuple(group)) for group in groups.values()]
    order = list(labels.values())
    lines.sort(key=lambda line: order.index(line.label) if line.label in order else len(order))
    return [Repeated(_distinct_label(line, lines), line.results) for line in lines]


def _distinct_label(line: Repeated, lines: Sequence[Repeated]) -> str:
    def place(other: Repeated) -> tuple[str, str, str]:
        return other.label, other.experiment.backbone, other.experiment.data.augment

    settings = [other.results[0].setting() for other in lines if place(other) == place(line)]
    own = line.results[0].setting()
    differing = [key for key in own if any(setting.get(key) != own[key] for setting in settings)]
    shown = ", ".join(f"{key} {own[key]}" for key in differing)
    return f"{line.label} ({shown})" if shown else line.label


def unusual_settings(lines: Sequence[Repeated]) -> list[str]:
    """For each line its settings that are not those of most lines, such as ``run.batch_size 128``; empty for none.

    Backbone, augmentation policy and the options of the method are left out.
    """
    settings = [line.results[0].setting() for line in lines]
    keys = {key for setting in settings for key in setting if not key.startswith("method.")}
    keys -= {"backbone", "data.augment", "weights"}
    usual = {key: Counter(str(setting.get(key)) for setting in settings).most_common(1)[0][0] for key in keys}
    return [
        ", ".join(f"{key} {setting.get(key)}" for key in sorted(keys) if str(setting.get(key)) != usual[key])
        for setting in settings
    ]
