"""``mixskd average``."""

import argparse

from mixskd.cli.flags import add_device
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json

SUMMARY = "Average several runs into one model, by their probabilities or their weights."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.add_argument("runs", nargs="+", metavar="RUN", help="the folders of two or more finished runs")
    p.add_argument("--out", required=True, metavar="DIR", help="a new folder for the average, which is a finished run")
    p.add_argument(
        "--weights", action="store_true",
        help="average the weights, not the probabilities: for runs of one network from the same weights",
    )  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    add_device(p)
    p.add_argument("--json", action="store_true")
    p.epilog = (
        "A mean of probabilities holds all networks, and a prediction costs as much as those of all runs together. A "
        "mean of weights costs as much as one run; the statistics of its batch norms are computed anew on the training "
        "images, unless they are the same in all runs."
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the average, and print its scores beside those of the runs."""
    from mixskd.evaluation.average import average

    found = average(
        arguments.runs, arguments.out, weights=arguments.weights, overwrite=arguments.overwrite,
        device=arguments.device,
    )  # fmt: skip
    if arguments.json:
        print(to_json(found))
        return
    scores = list(found["scores"].values())[-1]
    for name, own in [*((one["run"], one["scores"]) for one in found["runs"]), (found["out"], scores)]:
        main = next(key for key in ("top1", "map") if key in own)
        show(f"{name}: {'top-1' if main == 'top1' else 'mAP'} {own[main]:.2f} % on {list(found['scores'])[-1]}")
    costs = "one network" if found["networks"] == 1 else f"{found['networks']} networks"
    show(f"{found['out']}/model.safetensors: a prediction costs {costs}", *found["notes"])
