"""Using and taking away what was trained."""

from mixskd.deploy.model_file import load_model, save_model

__all__ = ["load_model", "save_model"]
