"""Figures of finished runs: learning curves, costs and the results of the suites."""
