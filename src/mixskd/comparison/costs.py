"""The updates and counted operations of an experiment's epochs, and the epochs that cost a given amount."""

import dataclasses
from collections.abc import Callable, Mapping

from mixskd.benchmarking.cost import count_cost
from mixskd.config import DataConfig, Experiment
from mixskd.data import DataBundle, load_data


class Costs:
    """The updates and training operations (FLOPs) of experiments on ``data``.

    Each network and method is counted once; ``known`` holds what was counted before.
    """

    def __init__(self, data: DataBundle, known: dict[tuple[object, ...], float] | None = None) -> None:
        self.data, self.known = data, {} if known is None else known

    def updates(self, experiment: Experiment) -> int:
        """The updates of one epoch, 1 or more."""
        return max(1, len(self.data.train) // experiment.run.batch)

    def epoch(self, experiment: Experiment) -> float:
        """The operations of one epoch, forward and backward, by :func:`mixskd.benchmarking.cost.count_cost`.

        Raises UserError for a method that refuses the backbone.
        """
        method, batch, config = experiment.method, experiment.run.batch, experiment.data
        options = tuple(sorted((key, repr(value)) for key, value in method.options.items()))
        size, classes = config.image_size or self.data.image_size, len(self.data.classes)
        images = size, config.channels, config.scale_schedule
        key = experiment.backbone, method.name, options, classes, images, batch
        if key not in self.known:  # seconds for some networks
            self.known[key] = count_cost(experiment, classes, size).training_flops
        return self.known[key] * self.updates(experiment) * batch

    def whole(self, experiment: Experiment) -> float:
        """The operations of the whole run."""
        return self.epoch(experiment) * experiment.run.epochs

    def fitted(self, experiment: Experiment, operations: float) -> Experiment:
        """``experiment`` with the epochs that ``operations`` pay, 1 or more, as :func:`lasting` makes it."""
        return lasting(experiment, int(operations / self.epoch(experiment) + 1e-6))


class CostsByData:
    """The :class:`Costs` of experiments on several data sets; each configuration of data is read once."""

    def __init__(self) -> None:
        self._by_data: dict[DataConfig, Costs] = {}
        self._known: dict[tuple[object, ...], float] = {}

    def __call__(self, experiment: Experiment) -> Costs:
        config = experiment.data
        if config not in self._by_data:
            self._by_data[config] = Costs(load_data(config, verify=False), self._known)
        return self._by_data[config]


def equalised(
    experiments: Mapping[str, Experiment], reference: str, measure: Callable[[Experiment], float]
) -> dict[str, Experiment]:
    """Each arm with the epochs that cost as much as the whole of ``reference``, to within half an epoch.

    ``measure`` gives the cost of one epoch.
    """
    whole = experiments[reference].run.epochs * measure(experiments[reference])
    return {label: lasting(one, whole / measure(one)) for label, one in experiments.items()}


def lasting(experiment: Experiment, epochs: float) -> Experiment:
    """``experiment`` with ``epochs`` epochs, rounded, 1 or more; its schedule scales with them."""
    epochs = max(1, round(epochs))
    factor, optim = epochs / experiment.run.epochs, experiment.optim
    scaled = dataclasses.replace(
        optim,
        warmup_epochs=optim.warmup_epochs * factor,
        # The first epoch keeps the initial rate.
        milestones=tuple(max(1, round(milestone * factor)) if milestone else 0 for milestone in optim.milestones),
        restarts=tuple(max(1, round(restart * factor)) for restart in optim.restarts),
    )
    return dataclasses.replace(experiment, optim=scaled, run=dataclasses.replace(experiment.run, epochs=epochs))
