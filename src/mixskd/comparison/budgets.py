"""Arms of a grid with equal budgets: as many updates, or as many counted operations, as one of them."""

import dataclasses
from collections.abc import Callable, Mapping

from mixskd.benchmarking.cost import count_cost
from mixskd.config import DataConfig, Experiment
from mixskd.data import DataBundle, load_data


def updates_of(experiment: Experiment, data: DataBundle) -> int:
    """The updates of an epoch of ``data``, 1 or more."""
    return max(1, len(data.train) // experiment.run.batch)


class Operations:
    """Counts the training operations (FLOPs) of experiments; each network and method is counted once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], float] = {}

    def of_epoch(self, experiment: Experiment, data: DataBundle) -> float:
        """The operations of an epoch, forward and backward, by :func:`mixskd.benchmarking.cost.count_cost`.

        Raises UserError for a method that refuses the backbone.
        """
        method, batch, config = experiment.method, experiment.run.batch, experiment.data
        options = tuple(sorted((key, repr(value)) for key, value in method.options.items()))
        size, classes = config.image_size or data.image_size, len(data.classes)
        images = size, config.channels, config.scale_schedule
        key = experiment.backbone, method.name, options, classes, images, batch
        if key not in self._known:  # seconds for some networks
            self._known[key] = count_cost(experiment, classes, size).training_flops
        return self._known[key] * updates_of(experiment, data) * batch


class Budgets:
    """The updates and operations of the arms of a grid; the data of each configuration are read once."""

    def __init__(self) -> None:
        self._data: dict[DataConfig, DataBundle] = {}
        self._operations = Operations()

    def updates(self, experiment: Experiment) -> float:
        """The updates of an epoch."""
        return updates_of(experiment, self._bundle(experiment))

    def operations(self, experiment: Experiment) -> float:
        """The operations of an epoch."""
        return self._operations.of_epoch(experiment, self._bundle(experiment))

    def _bundle(self, experiment: Experiment) -> DataBundle:
        if experiment.data not in self._data:
            self._data[experiment.data] = load_data(experiment.data, verify=False)
        return self._data[experiment.data]


def equalised(
    experiments: Mapping[str, Experiment], reference: str, measure: Callable[[Experiment], float]
) -> dict[str, Experiment]:
    """Each arm with the epochs that cost as much as the whole of ``reference``, to within half an epoch.

    ``measure`` gives the cost of one epoch.
    """
    whole = experiments[reference].run.epochs * measure(experiments[reference])
    return {label: lasting(one, whole / measure(one)) for label, one in experiments.items()}


def lasting(experiment: Experiment, epochs: float) -> Experiment:
    """``experiment`` with ``epochs`` epochs, rounded; warm-up and milestones scale with them."""
    factor = max(1, round(epochs)) / experiment.run.epochs
    optim = dataclasses.replace(
        experiment.optim,
        warmup_epochs=experiment.optim.warmup_epochs * factor,
        milestones=tuple(round(milestone * factor) for milestone in experiment.optim.milestones),
        restarts=tuple(max(1, round(restart * factor)) for restart in experiment.optim.restarts),
    )
    run = dataclasses.replace(experiment.run, epochs=round(experiment.run.epochs * factor))
    return dataclasses.replace(experiment, optim=optim, run=run)
