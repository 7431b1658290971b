"""Measures of a trained classifier."""
