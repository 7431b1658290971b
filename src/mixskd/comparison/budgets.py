"""Arms of a grid with equal budgets: as many updates, or as many counted operations, as one of them."""

import dataclasses
from collections.abc import Callable, Mapping

from mixskd.benchmarking.cost import count_cost
from mixskd.config import DataConfig, Experiment
from mixskd.data import DataBundle, load_data

# What an epoch of an arm, given by its label and experiment, makes or costs.
Measure = Callable[[str, Experiment], float]


class Budgets:
    """Counts updates and operations of experiments; the data of a configuration and the cost of an arm only once."""

    def __init__(self) -> None:
        self._data: dict[DataConfig, DataBundle] = {}
        self._flops: dict[tuple[object, ...], float] = {}

    def updates(self, label: str, experiment: Experiment) -> float:
        """The updates of an epoch."""
        return max(1, len(self._bundle(experiment).train) // experiment.run.batch)

    def operations(self, label: str, experiment: Experiment) -> float:
        """The operations of an epoch, forward and backward, by :func:`mixskd.benchmarking.cost.count_cost`."""
        data, batch = self._bundle(experiment), experiment.run.batch
        sizes = data.image_size, experiment.data.scale_schedule
        key = label, experiment.backbone, len(data.classes), sizes, batch
        if key not in self._flops:  # seconds for some networks
            self._flops[key] = count_cost(experiment, len(data.classes), data.image_size).training_flops
        return self.updates(label, experiment) * batch * self._flops[key]

    def _bundle(self, experiment: Experiment) -> DataBundle:
        if experiment.data not in self._data:
            self._data[experiment.data] = load_data(experiment.data, verify=False)
        return self._data[experiment.data]


def equalised(experiments: Mapping[str, Experiment], reference: str, measure: Measure) -> dict[str, Experiment]:
    """Each arm with the epochs that cost as much as the whole of ``reference``, to within half an epoch."""
    whole = experiments[reference].run.epochs * measure(reference, experiments[reference])
    return {label: lasting(one, whole / measure(label, one)) for label, one in experiments.items()}


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
