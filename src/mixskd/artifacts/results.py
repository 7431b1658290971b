"""Finished runs read back from their folders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixskd.artifacts.stored_files import read_summary
from mixskd.config import NOT_COMPARED, Experiment, flatten, to_dict
from mixskd.config.build import read_experiment
from mixskd.config.task_kinds import Kind, kind_of, monitor_of
from mixskd.errors import UserError
from mixskd.runtime.files import slug

# These differ between the runs of one setting.
OF_A_RUN = (*NOT_COMPARED, "run.seed", "data.fold", "method.teacher")


@dataclass(frozen=True)
class Result:
    """One finished run: its experiment and its summary."""

    name: str
    experiment: Experiment
    summary: dict[str, Any]
    folder: Path = Path()

    @property
    def label(self) -> str:
        """The run's name without backbone, augmentation policy, fold and seed."""
        e, label = self.experiment, self.name.removesuffix(f"-seed{self.experiment.run.seed}")
        label = label.removesuffix(f"-fold{e.data.fold}")
        if self.kind is not None:
            label = re.sub(r"-from\d+$", "", label)  # the seed of its backbone
        for part in (e.data.augment, slug(e.backbone)):
            label = label.removesuffix(f"-{part}")
        return label

    @property
    def kind(self) -> Kind | None:
        """The kind of the task, None for classification."""
        return kind_of(self.experiment.method.name, self.summary.get("task"))

    @property
    def score(self) -> float | None:
        """The main score of the deployed network, in per cent: top-1, AP or mIoU; None if its data cannot give one."""
        return deployed_scores(self.summary)[1].get(monitor_of(self.kind).name)

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
        s = self.summary
        return s["best"] if "best" in s else {"split": "test", **s["best_on_test"]}

    def setting(self) -> dict[str, Any]:
        """The settings that the run shares with its repetitions, by dotted name."""
        flat = flatten(to_dict(self.experiment))
        setting = {key: value for key, value in flat.items() if key not in OF_A_RUN}
        if self.experiment.weights is not None:  # backbones of several seeds are repetitions too
            setting["weights"] = re.sub(r"-seed\d+/?$", "", self.experiment.weights)
        return setting


def deployed_scores(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """The split and the scores of the deployed classifier: on ``test`` where there is one, else on ``val``.

    Summaries of the first format have those after the last epoch, on ``test``.
    """
    if "scores" not in summary:
        return "test", summary["last"]
    split = "test" if "test" in summary["scores"] else "val"
    return split, summary["scores"][split]


def read_results(folder: Path) -> list[Result]:
    """The finished runs in ``folder``, by name. Raises UserError without any."""
    found = sorted(folder.glob("*/summary.json"))
    results = [read_result(path.parent) for path in found if path.with_name("config.yaml").exists()]
    if not results:
        raise UserError(f"there is no finished run in {folder}")
    return results


def read_result(folder: Path) -> Result:
    """The finished run in ``folder``. Raises UserError for a summary or a configuration that cannot be read."""
    config = folder / "config.yaml"
    if not config.exists():
        raise UserError(f"{folder} has no config.yaml; it is not a run of mixskd")
    try:
        experiment = read_experiment(config)
    except UserError as error:
        if str(config) in str(error):
            raise
        raise UserError(f"{config} is not the configuration of a run: {error}") from None
    summary = read_summary(folder / "summary.json", classifier=kind_of(experiment.method.name) is None)
    return Result(folder.resolve().name, experiment, summary, folder)
