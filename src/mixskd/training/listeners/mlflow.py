"""Losses and scores for MLflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from mixskd.config import flatten, to_dict
from mixskd.errors import UserError
from mixskd.runtime.files import write_text
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo


class MLflow(Listener):
    """One run at the place that ``MLFLOW_TRACKING_URI`` names. A file in the folder makes a resumed run the same run.

    Raises UserError if mlflow is not installed, or cannot start.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise UserError("run.mlflow needs mlflow: pip install 'mixskd[mlflow]'")
        self.client: Any = None

    def start(self, info: RunInfo) -> None:
        import mlflow

        self.log_every, self.status = info.experiment.run.log_every, "FAILED"
        known = info.folder / "mlflow_run.txt"
        try:
            client = mlflow.MlflowClient()
            if known.exists():
                self.run_id = known.read_text(encoding="utf-8").strip()
                client.set_terminated(self.run_id, "RUNNING")
            else:
                experiment = client.get_experiment_by_name("mixskd")
                home = experiment.experiment_id if experiment else client.create_experiment("mixskd")
                self.run_id = client.create_run(home, run_name=info.folder.name).info.run_id
                write_text(known, self.run_id + "\n")
                for key, value in flatten(to_dict(info.experiment)).items():
                    client.log_param(self.run_id, key, str(value)[:500])
        except mlflow.exceptions.MlflowException as error:
            raise UserError(f"mlflow cannot start: {str(error).splitlines()[0]}") from None
        self.client = client

    def step(self, info: StepInfo) -> None:
        if info.step % self.log_every == 0:
            self._log({f"step/{name}": value for name, value in {**info.losses(), "lr": info.lr}.items()}, info.step)

    def epoch(self, row: Mapping[str, float]) -> None:
        values = {name.replace("_", "/", 1): value for name, value in row.items() if name != "step"}
        self._log(values, int(row["step"]))

    def end(self, summary: Mapping[str, Any]) -> None:
        self._log({f"final/{name}": value for name, value in flatten(summary["scores"]).items()}, summary["updates"])
        self.status = "FINISHED"

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, float(value), step=step)

    def close(self) -> None:
        if self.client is not None:
            self.client.set_terminated(self.run_id, self.status)
