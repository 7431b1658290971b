"""``mixskd benchmark``. It imports no torch before it measures."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixskd.cli.experiment import add_experiment_flags, experiment_from
from mixskd.errors.text import to_json
from mixskd.runtime.files import check_writable, write_text

SUMMARY = "Time the training step on this machine, with each optimisation on and off."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    p.add_argument("--variants", help="comma-separated names, such as plain,default; all usual ones by default")
    p.add_argument("--rounds", type=int, default=10, help="rounds of measurement for each variant")
    p.add_argument("--out", dest="report", metavar="FILE.json", help="where to write the figures")


def run(arguments: argparse.Namespace) -> None:
    """Time the training step in several ways, print a table and write the figures."""
    experiment = experiment_from(arguments)
    if arguments.report is not None:
        check_writable(Path(arguments.report))
    from mixskd.benchmarking.benchmark import benchmark
    from mixskd.benchmarking.table import show

    report = benchmark(experiment, variants=arguments.variants, rounds=arguments.rounds)
    show(report)
    if arguments.report is not None:
        write_text(Path(arguments.report), to_json(report, indent=2) + "\n")
