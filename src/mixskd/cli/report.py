"""``mixskd report``."""

import argparse

from mixskd.errors.terminal import show

SUMMARY = "Show finished runs in one HTML file."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.add_argument("runs", nargs="+", metavar="RUN_OR_FOLDER", help="a run's folder, or a folder of runs")
    p.add_argument("--out", default="report.html", metavar="FILE.html", help="report.html by default")
    p.add_argument("--figures", metavar="DIR", help="also write each figure as SVG and PNG into this folder")


def run(arguments: argparse.Namespace) -> None:
    """Write the report and print where."""
    from mixskd.reporting.page.report import write_report

    show(write_report(arguments.runs, arguments.out, figures=arguments.figures))
