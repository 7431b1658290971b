"""Using and taking away what was trained."""

from mixskd.deploy.exporting import export
from mixskd.deploy.model_file import Classifier, load_model, save_model
from mixskd.deploy.using import evaluate, predict

__all__ = ["Classifier", "evaluate", "export", "load_model", "predict", "save_model"]
