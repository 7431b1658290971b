"""What training costs on this machine: each optimisation on and off, side by side."""

from mixskd.benchmarking.run import benchmark

__all__ = ["benchmark"]
