"""Losses and scores for MLflow."""

from collections.abc import Mapping
from typing import Any

from mixskd.config import flatten, to_dict
from mixskd.errors import UserError, first_line
from mixskd.runtime.files import write_text
from mixskd.training.listeners.base import RunInfo
from mixskd.training.listeners.service import Service


class MLflow(Service):
    """One run at the address in ``MLFLOW_TRACKING_URI``. A file in the folder lets a resumed run continue it.

    Raises UserError if mlflow cannot start.
    """

    name = "mlflow"

    def start(self, info: RunInfo) -> None:
        import mlflow

        super().start(info)
        self.status = "FAILED"
        known = info.folder / "mlflow_run.txt"
        try:
            client = mlflow.MlflowClient()
            if known.exists():
                self.run_id = known.read_text(encoding="utf-8").strip()
                client.set_terminated(self.run_id, "RUNNING")
            else:
                project = client.get_experiment_by_name("mixskd")
                project_id = project.experiment_id if project else client.create_experiment("mixskd")
                self.run_id = client.create_run(project_id, run_name=info.folder.name).info.run_id
                write_text(known, self.run_id + "\n")
                for key, value in flatten(to_dict(info.experiment)).items():
                    client.log_param(self.run_id, key, str(value)[:500])
        except mlflow.exceptions.MlflowException as error:
            raise UserError(f"mlflow cannot start: {first_line(error)}") from None
        self.client = client

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, float(value), step=step)

    def end(self, summary: Mapping[str, Any]) -> None:
        self.log(self.final_scores(summary), summary["updates"])
        self.status = "FINISHED"

    def close(self) -> None:
        if self.client is not None:
            self.client.set_terminated(self.run_id, self.status)
