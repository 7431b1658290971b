"""The verb ``find-lr`` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mixskd.config import Experiment
from mixskd.errors.text import safe


def add_flags(p: argparse.ArgumentParser, experiment_from: Callable[[argparse.Namespace], Experiment]) -> None:
    """Give ``p`` the flags of the verb beside those of an experiment, which ``experiment_from`` reads."""
    p.set_defaults(resume=False, experiment_from=experiment_from)
    p.add_argument("--steps", type=int, default=100, help="steps of the test; 100 by default")
    p.add_argument("--lowest", type=float, default=1e-6, help="the rate of the first step; 1e-6 by default")
    p.add_argument("--highest", type=float, default=10.0, help="the rate of the last step; 10 by default")
    p.add_argument("--out", dest="picture", default="lr.png", metavar="FILE.png", help="lr.png by default")


def find_lr(arguments: argparse.Namespace) -> None:
    """Run the range test and print the suggestion, its rule and the picture."""
    experiment = arguments.experiment_from(arguments)
    from mixskd.training.lr_finder import RULE
    from mixskd.training.lr_finder import find_lr as run

    found = run(
        experiment, arguments.picture, steps=arguments.steps, lowest=arguments.lowest, highest=arguments.highest
    )
    print(f"--optim.lr {found.suggestion:g}: {RULE}; {len(found.rates)} steps from {found.rates[0]:g} to "
          f"{found.rates[-1]:.2g}")  # fmt: skip
    print(f"curve: {safe(arguments.picture, 'terminal')}")
