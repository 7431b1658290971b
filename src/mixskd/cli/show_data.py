"""``mixskd show-data``."""

import argparse
from pathlib import Path

from mixskd.cli.experiment import add_experiment_flags, experiment_from
from mixskd.errors.terminal import show
from mixskd.runtime.files import check_writable

SUMMARY = "Draw what the network will see, before anything is trained."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    p.add_argument("--images", type=int, default=8, help="rows of the picture")
    p.add_argument("--out", dest="picture", default="data.png", metavar="FILE.png", help="data.png by default")


def run(arguments: argparse.Namespace) -> None:
    """Draw what the network will see and print the file."""
    experiment = experiment_from(arguments)
    check_writable(Path(arguments.picture))
    from mixskd.reporting.show_data import show_data

    show(show_data(experiment, arguments.picture, images=arguments.images))
