"""``mixskd benchmark``. It imports no torch before it measures."""

import argparse
from pathlib import Path
from typing import Any

from mixskd.cli.experiment import add_experiment_flags, experiment_from
from mixskd.errors.text import to_json
from mixskd.runtime.files import check_writable, write_text

SUMMARY = "Time the training step on this machine, with each optimisation on and off."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    p.add_argument("--variants", help="comma-separated names, such as plain,default; all usual ones by default")
    p.add_argument("--rounds", type=int, default=10, help="rounds of measurement for each variant")
    p.add_argument("--skip-startup", action="store_true", help="do not time the start of the command line")
    p.add_argument("--out", dest="report", metavar="FILE.json", help="where to write the figures, after each round")


def run(arguments: argparse.Namespace) -> None:
    """Time the training step in several ways, print a table and write the figures."""
    experiment = experiment_from(arguments)
    out = None if arguments.report is None else Path(arguments.report)
    if out is not None:
        check_writable(out)
    from mixskd.benchmarking.benchmark import benchmark
    from mixskd.benchmarking.table import show

    def write(report: dict[str, Any]) -> None:
        if out is not None:
            write_text(out, to_json(report, indent=2) + "\n")

    options = {"variants": arguments.variants, "rounds": arguments.rounds, "startup": not arguments.skip_startup}
    report = benchmark(experiment, **options, after_round=write)
    show(report)
    write(report)
