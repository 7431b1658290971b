"""``mixskd calibrate``."""

import argparse

from mixskd.cli.flags import add_device, add_run, count
from mixskd.cli.progress import suite_bars
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json

SUMMARY = "Fit a temperature and thresholds for predict on the validation split."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_run(p)
    p.add_argument("--data", help="a data set with a validation split; the run's data by default")
    goal = p.add_mutually_exclusive_group()
    goal.add_argument(
        "--target-accuracy", type=float, metavar="PERCENT",
        help="the accuracy of the images above the threshold on val; 95 by default",
    )  # fmt: skip
    goal.add_argument(
        "--coverage", type=float, metavar="PERCENT", help="or the share of the images of val above the threshold"
    )
    p.epilog = (
        "Where an image may have several labels, each class gets the threshold with the highest F1; leave both out."
    )
    p.add_argument("--batch-size", type=count, default=256)
    add_device(p)
    p.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    """Fit a temperature and thresholds, store them, and print how good they are."""
    from mixskd.deploy.calibrating import calibrate

    with suite_bars(1) as progress:
        fitted = calibrate(
            arguments.run, arguments.data, target_accuracy=arguments.target_accuracy, coverage=arguments.coverage,
            batch_size=arguments.batch_size, device=arguments.device,
            progress=lambda share: progress(arguments.run, "calibrate", share),
        )  # fmt: skip
    if arguments.json:
        print(to_json(fitted))
        return
    before, after = fitted["before"], fitted["after"]
    show(
        f"temperature {fitted['temperature']:.4g}: NLL {before['nll']:.4f} -> {after['nll']:.4f}, "
        f"ECE {before['ece']:.2f} % -> {after['ece']:.2f} % on the {fitted['images']:,} images of val",
        f"thresholds of {len(fitted['thresholds']):,} classes: F1 {before['f1']:.2f} % -> {after['f1']:.2f} %, "
        f"mean over the classes {before['f1_macro']:.2f} % -> {after['f1_macro']:.2f} %"
        if "thresholds" in fitted
        else f"threshold {fitted['threshold']:.4g}: accepts {fitted['accepted']:.2f} % of them, "
        f"{fitted['accepted_images']:,}, with top-1 {fitted['accepted_top1']:.2f} %; all have {fitted['top1']:.2f} %",
        "stored in the model file; mixskd predict uses both",
    )
