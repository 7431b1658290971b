"""The listeners of a run: the screen, metrics.csv, TensorBoard, Weights & Biases, MLflow."""

from mixskd.config import RunConfig
from mixskd.training.listeners.base import Listener, RunInfo, StepInfo
from mixskd.training.listeners.metrics_file import MetricsFile
from mixskd.training.listeners.mlflow import MLflow
from mixskd.training.listeners.progress_bar import ProgressBar
from mixskd.training.listeners.service import Service
from mixskd.training.listeners.tensorboard import TensorBoard
from mixskd.training.listeners.wandb import WandB

SERVICES: tuple[type[Service], ...] = (TensorBoard, WandB, MLflow)


def listeners_of(run: RunConfig) -> list[Listener]:
    """The listeners that ``run`` names. Raises UserError for one whose package is not installed."""
    shown: list[Listener] = [ProgressBar()] if run.progress else []
    return [MetricsFile(), *shown, *(kind() for kind in SERVICES if getattr(run, kind.name))]


__all__ = ["Listener", "MetricsFile", "ProgressBar", "RunInfo", "StepInfo", "listeners_of"]
