"""Self-knowledge distillation for image classifiers: MixSKD (ECCV 2022) and its peers."""

__version__ = "0.1.0"
