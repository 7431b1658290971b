"""``mixskd train``. It imports no torch before it trains."""

import argparse
import os
from collections.abc import Callable
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


def run(arguments: argparse.Namespace, describe: Callable[[argparse.Namespace], Experiment] = experiment_from) -> None:
    """Train the experiment that ``describe`` returns, and print its scores and its model file."""
    experiment = describe(arguments)
    if arguments.print_config:
        print(to_yaml(experiment), end="")
        return
    from mixskd.training.run import train

    summary = train(
        experiment, resume=arguments.resume, overwrite=arguments.overwrite, more_epochs=arguments.more_epochs,
        dry_run=arguments.dry_run, remarks=[arguments.chosen] if arguments.chosen else [],
    )  # fmt: skip
    if "scores" in summary:  # on the first of several processes
        show(scores_line(summary), f"model: {Path(summary['out']) / 'model.safetensors'}")
    elif "plan" in summary and os.environ.get("RANK", "0") == "0":
        show(*summary["plan"], "dry run: everything up to the first step works; nothing was written")


def scores_line(summary: dict[str, Any]) -> str:
    """The scores of a finished run in one line."""
    best, deployed = summary["best"], summary["deployed"]
    which = f"the weights of epoch {deployed['epoch']:.0f}"
    if kind := kind_of(summary["experiment"]["method"], summary.get("task")):
        scores = [f"{split} {kind.line(values)}" for split, values in summary["scores"].items()]
    else:
        splits = sorted(summary["scores"], reverse=True)  # val before test
        scores = [f"{split} top-1 {summary['scores'][split]['top1']:.2f} %" for split in splits]
        if deployed["selected_on"]:
            which += ", the best on val"
        elif best["epoch"] != deployed["epoch"]:
            which += f" (best on {best['split']}: {best['top1']:.2f} % at epoch {best['epoch']:.0f})"
    return f"{'  '.join(scores)}  by {which}, in {summary['seconds']:.0f} s"
