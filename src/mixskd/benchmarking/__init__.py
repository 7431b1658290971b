"""Measure the cost of training on this machine, with each optimisation on and off."""
