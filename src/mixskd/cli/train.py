"""``mixskd train``. It imports no torch before it trains."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixskd.cli.experiment import add_experiment_flags, add_run_flags, experiment_from
from mixskd.config import Experiment, to_yaml
from mixskd.config.task_kinds import kind_of
from mixskd.errors.terminal import show

SUMMARY = "Train a classifier; with no argument, MixSKD on the embedded digits."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    add_run_flags(p)


def run(arguments: argparse.Namespace) -> None:
    """Train, and print the scores and the folder of the run."""
    experiment = experiment_from(arguments)
    summary = train(experiment, arguments, [arguments.chosen] if arguments.chosen else [])
    if summary is not None:
        show(scores_line(summary), f"model: {Path(summary['out']) / 'model.safetensors'}")


def train(experiment: Experiment, arguments: argparse.Namespace, remarks: Sequence[str] = ()) -> dict[str, Any] | None:
    """The summary of the run; None in all processes but the first, after ``--print-config`` and ``--dry-run``."""
    if arguments.print_config:
        print(to_yaml(experiment), end="")
        return None
    from mixskd.training.run import rehearse
    from mixskd.training.run import train as run

    options = {"resume": arguments.resume, "overwrite": arguments.overwrite, "remarks": remarks}
    if not arguments.dry_run:
        summary = run(experiment, **options)
        return summary if "scores" in summary else None
    lines = rehearse(experiment, **options)
    if os.environ.get("RANK", "0") == "0":  # the first of several processes
        show(*lines, "dry run: everything up to the first step works; nothing was written")
    return None


def scores_line(summary: dict[str, Any]) -> str:
    """The scores of a finished run in one line."""
    best, deployed, kind = summary["best"], summary["deployed"], kind_of(summary["experiment"]["method"])
    which = f"the weights of epoch {deployed['epoch']:.0f}"
    if kind is not None:
        scores = "  ".join(f"{split} {kind.line(values)}" for split, values in summary["scores"].items())
        return f"{scores}  by {which}, in {summary['seconds']:.0f} s"
    scores = "  ".join(
        f"{split} top-1 {values['top1']:.2f} %" for split, values in sorted(summary["scores"].items(), reverse=True)
    )
    if deployed["selected_on"]:
        which += ", the best on val"
    elif best["epoch"] != deployed["epoch"]:
        which += f" (best on {best['split']}: {best['top1']:.2f} % at epoch {best['epoch']:.0f})"
    return f"{scores}  by {which}, in {summary['seconds']:.0f} s"
