"""What a trained classifier is used by: model files, predictions, exports."""
