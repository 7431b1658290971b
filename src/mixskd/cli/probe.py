"""``mixskd probe``. It imports no torch before it measures."""

import argparse
from pathlib import Path
from typing import Any

from mixskd.config import merge
from mixskd.config.build import check_settings
from mixskd.errors import UserError
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json, visible

SUMMARY = "Fit simple classifiers on the frozen features of backbones, without training."
SETTINGS = ("data.", "run.device", "run.seed")


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.add_argument("--data", required=True, help="an image folder, or what else mixskd train takes")
    p.add_argument(
        "--backbone", required=True, metavar="NAME[,NAME2]", help="one or more backbones, such as timm/resnet50"
    )
    p.add_argument("--weights", default="pretrained", help="pretrained, a file of weights, or a run's folder")
    p.add_argument("--out", help="where the best one is saved as a finished run; runs/DATA-probe by default")
    p.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    p.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out and count them")
    p.add_argument("--json", action="store_true")
    p.set_defaults(recipe=None)
    p.epilog = (
        "The data's settings are given by their dotted names, such as --data.image-size 128; mixskd train --help "
        "explains them. Backbones and classifiers are ranked on val, or by folds of the training images; test ranks "
        "nothing."
    )


def run(arguments: argparse.Namespace) -> None:
    """Print a table of what simple classifiers reach on frozen features, and save the best one."""
    if strange := next((key for key in arguments.dotted if not key.startswith(SETTINGS)), None):
        raise UserError(f"a probe has no setting {strange}, since nothing is trained; leave it out")
    settings: dict[str, Any] = {"data.source": arguments.data, "weights": arguments.weights, **arguments.dotted}
    if arguments.skip_bad_images:
        settings["data.skip_bad_images"] = True
    check_settings(settings)
    from mixskd.cli.progress import suite_bars
    from mixskd.evaluation.probe import probe_data

    with suite_bars(2) as progress:
        found = probe_data(
            merge(settings), arguments.backbone, arguments.out, overwrite=arguments.overwrite, progress=progress
        )
    if arguments.json:
        print(to_json(found))
        return
    show_table(found)


def show_table(found: dict[str, Any]) -> None:
    """The table, the notes, and where the model is."""
    by = found["rows"][0]["chosen_by"]
    lines = [("backbone", "classifier", f"% on {by}", "% on test", "seconds")]
    for row in found["rows"]:
        shares = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("held_out", "test"))
        lines.append((visible(row["backbone"]), row["classifier"], *shares, f"{row['seconds']:.1f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        show("  ".join(f"{x:<{n}}" if i < 2 else f"{x:>{n}}" for i, (x, n) in enumerate(cells)))
    for note in found["notes"]:
        show(f"note: {note}")
    saved = found["saved"]
    show(f"saved: {saved['classifier']} on {saved['backbone']}", f"model: {Path(found['out']) / 'model.safetensors'}")
