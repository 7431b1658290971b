"""``--dry-run`` of the verbs that train: do all that a run does up to its first step, and leave nothing behind."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from mixskd.config import Experiment
from mixskd.errors.text import safe


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the flag."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="do everything up to and including the first step, print what the run would do, and write nothing; "
        "no logging service is started",
    )


def rehearse(experiment: Experiment, arguments: argparse.Namespace, remarks: Sequence[str] = ()) -> None:
    """Print what the run would do. Raises UserError for whatever it would refuse."""
    from mixskd.training.run import rehearse as run

    lines = run(experiment, resume=arguments.resume, overwrite=arguments.overwrite, remarks=remarks)
    if os.environ.get("RANK", "0") == "0":  # the first of several processes speaks for them
        print(*(safe(line, "terminal") for line in lines), sep="\n")
        print("dry run: everything up to the first step works; nothing was written")
