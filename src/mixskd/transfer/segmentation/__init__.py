"""Semantic segmentation: a class for every pixel, on a backbone that was trained to classify."""
