"""``mixskd average``."""

import argparse

from mixskd.errors.terminal import show

SUMMARY = "Make one model file of several runs: the mean of their probabilities, or of their weights."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs with the same classes and image size")
    p.add_argument("--out", default="average.safetensors", metavar="FILE", help="the model file to write")
    p.add_argument(
        "--weights", action="store_true", help="the mean of the weights; the runs started from the same trained weights"
    )
    p.add_argument("--overwrite", action="store_true", help="replace the file in --out")


def run(arguments: argparse.Namespace) -> None:
    """Write the average and print where."""
    from mixskd.deploy.averaging import average

    show(average(arguments.runs, arguments.out, weights=arguments.weights, overwrite=arguments.overwrite))
