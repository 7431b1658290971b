"""The verb ``find-lr`` of the command line."""

import argparse

from mixskd.cli.experiment import add_experiment_flags, experiment_from
from mixskd.errors.text import safe

SUMMARY = "Suggest a learning rate by a range test."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    p.add_argument("--steps", type=int, default=100, help="steps of the test; 100 by default")
    p.add_argument("--lowest", type=float, default=1e-6, help="the rate of the first step; 1e-6 by default")
    p.add_argument("--highest", type=float, default=10.0, help="the rate of the last step; 10 by default")
    p.add_argument("--out", dest="picture", default="lr.png", metavar="FILE.png", help="lr.png by default")


def run(arguments: argparse.Namespace) -> None:
    """Run the range test and print the suggestion, its rule and the picture."""
    experiment = experiment_from(arguments)
    from mixskd.training.lr_finder import RULE, find_lr

    found = find_lr(
        experiment, arguments.picture, steps=arguments.steps, lowest=arguments.lowest, highest=arguments.highest
    )
    print(f"--optim.lr {found.suggestion:g}: {RULE}; {len(found.rates)} steps from {found.rates[0]:g} to "
          f"{found.rates[-1]:.2g}")  # fmt: skip
    print(f"curve: {safe(arguments.picture, 'terminal')}")
