"""The verbs ``report`` and ``show-data`` of the command line."""

from __future__ import annotations

import argparse

from mixskd.errors.text import safe


def add_report_flags(p: argparse.ArgumentParser) -> None:
    """The arguments of ``mixskd report``."""
    p.add_argument("runs", nargs="+", metavar="RUN_OR_FOLDER", help="a run's folder, or a folder of runs")
    p.add_argument("--out", default="report.html", metavar="FILE.html", help="report.html by default")
    p.add_argument("--figures", metavar="DIR", help="also write each figure as SVG and PNG into this folder")


def report(arguments: argparse.Namespace) -> None:
    """Write the report and print where."""
    from mixskd.reporting.page.report import write_report as run

    print(safe(run(arguments.runs, arguments.out, figures=arguments.figures), "terminal"))
