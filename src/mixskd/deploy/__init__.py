"""Using a trained classifier: predictions, calibration, exports, publication."""
