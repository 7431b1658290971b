"""``mixskd compare``. It imports no torch before it runs a grid."""

import argparse
import csv
from pathlib import Path
from typing import Any

from mixskd.cli.launching import add_launcher_flags, launcher_from
from mixskd.comparison.grid import GRID_KEYS, combined, grid_from, words
from mixskd.config import grids, merge, read_yaml, recipes
from mixskd.config.build import check_settings
from mixskd.config.registry import check_method
from mixskd.config.task_kinds import KINDS
from mixskd.config.trusted_backbones import remember_typed
from mixskd.errors import UserError
from mixskd.errors.terminal import console, show
from mixskd.errors.text import visible

SUMMARY = "Compare methods over seeds; with no argument, on the embedded digits."
SETTING_FLAGS = {"data": "data.source", "weights": "weights", "epochs": "run.epochs", "batch-size": "run.batch_size"}


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.epilog = (
        "A method may have options and a label: mixskd[mix=cutmix], short=mixskd[run.epochs=10]. mixskd train --help "
        "--method NAME explains the options of a method. Any setting of all "
        "runs has a flag by its dotted name, such as --optim.lr 0.05; so has an option of the launcher: "
        "--launcher.num_gpus 1. --transfer.SETTING is one of the detectors or segmentation networks that the backbones "
        "are carried into: --transfer.recipe detect_coco --transfer.data.source cells --transfer.scratch true."
    )
    p.add_argument("recipe", nargs="?", help=f"the recipe for all runs: {', '.join(recipes.names())}")
    p.add_argument("--grid", metavar="NAME", help=f"a named ablation: {', '.join(grids.names())}")
    p.add_argument("--methods", help="comma-separated; see mixskd list methods")
    p.add_argument("--backbones", help="comma-separated")
    p.add_argument("--augments", help="comma-separated values of data.augment")
    p.add_argument("--suites", help="comma-separated evaluation suites; each adds a column to the table")
    p.add_argument("--seeds", help="comma-separated; 0,1,2 by default")
    p.add_argument("--folds", metavar="K", help="K runs for each seed, one for each fold of a cross-validation")
    p.add_argument("--data", help="a data set's name, an image folder, or an .npz file")
    p.add_argument(
        "--weights", help="weights that all runs start from: a run's folder, a file of weights, or pretrained"
    )
    p.add_argument("--epochs", help="passes over the training images")
    p.add_argument("--batch-size", help="original images per update")
    p.add_argument(
        "--config", metavar="FILE.yaml",
        help="a grid and its settings; they override the recipe, and flags override them",
    )  # fmt: skip
    p.add_argument("--out", help="the folder of runs and tables; runs/compare-DATA by default")
    p.add_argument("--equal-updates", metavar="METHOD", help="give every method as many updates as this one makes")
    p.add_argument(
        "--equal-cost", nargs="?", const="", metavar="METHOD",
        help="give every method as many counted operations in training as this one (baseline, or else the first)",
    )  # fmt: skip
    p.add_argument("--images-per-update", metavar="N", help="set batch sizes so that each update forwards N images")
    add_launcher_flags(p)
    p.add_argument("--dry-run", action="store_true", help="list the runs and stop")
    p.add_argument("--table", metavar="DIR", help="write the tables of the runs in DIR and stop")


def run(arguments: argparse.Namespace) -> int:
    """Run a grid, or what ``--table`` or ``--dry-run`` ask for; 1 if a run failed."""
    if arguments.table:
        from mixskd.comparison.comparison import tabulate

        tabulate(Path(arguments.table), words(arguments.suites or (), "suites"))
        return _show(Path(arguments.table))
    launcher = launcher_from(arguments)
    grid = grid_from(_values(arguments))
    for arm in grid.arms:
        check_method(arm.settings["method.name"])
        own = {key: value for key, value in arm.settings.items() if not key.startswith("method.")}
        check_settings(merge(grid.settings, own))
    from mixskd.comparison.comparison import folder_of, plan, run_grid

    folder = folder_of(grid, arguments.out, arguments.grid)
    if arguments.dry_run:
        for one in plan(grid, folder):
            show(f"{one.name}: {one.state}{', after ' + ', '.join(one.after) if one.after else ''}")
        return 0
    done = run_grid(grid, folder, **launcher)
    if done.rows:
        _show(folder)
    for name, reason in done.failures.items():
        show(f"mixskd: {name} failed: {reason}", error=True)
    return 1 if done.failures else 0


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The grid that recipe, ``--config`` and flags describe, later ones over earlier ones."""
    axes = {key: value for key in GRID_KEYS if (value := getattr(arguments, key, None)) is not None}
    flags = {key: value for flag, key in SETTING_FLAGS.items() if (value := getattr(arguments, flag.replace("-", "_")))}
    dotted = arguments.dotted
    if key := next((key for key in dotted if key.startswith("method.")), None):
        option = f"{key.removeprefix('method.')}={dotted[key]}"
        raise UserError(f"--{key} names no method of the grid; write --methods 'NAME[{option}]'")
    settings = merge(flags | dotted)
    remember_typed(axes.get("backbones"), settings.get("backbone"))
    if arguments.config:
        settings = merge(read_yaml(Path(arguments.config)), settings)
    return combined(settings, arguments.grid, axes, whole=bool(arguments.config))


DETAILS = (" std", " from", " to")  # the ends of the names of columns that are shown with the one before them
# Columns that are only in the files, and how many of the others a terminal shows.
HIDDEN, SHOWN = ("parameters", "in training", "policy", "MFLOPs an image", "MFLOPs an original in training"), 7


def _cell(row: dict[str, str], column: str) -> str:
    """A cell of table.csv for a person: a mean with its deviation, numbers to two places, plain text."""
    from rich.markup import escape

    value, deviation = row[column], row.get(f"{column} std")
    if low := row.get(f"{column} from"):
        return escape(f"{float(value):+.2f} [{float(low):+.2f}, {float(row[f'{column} to']):+.2f}]")
    try:
        shown = f"{float(value):,.2f}" if "." in value else value
    except ValueError:
        shown = value
    return escape(visible(f"{shown} ± {float(deviation):.2f}" if deviation else shown))


def _show(folder: Path) -> int:
    """Print the main columns of the tables, as wide as the terminal, and the file with all columns."""
    from rich.table import Table

    written = [folder / "table.md", folder / "table.tex"]
    for name in ("table", *(kind.name for kind in KINDS)):
        path = folder / f"{name}.csv"
        if not path.exists():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = [c for c in rows[0] if c not in HIDDEN and not c.endswith(DETAILS) and any(row[c] for row in rows)]
        table = Table(*columns[:SHOWN], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(_cell(row, column) for column in columns[:SHOWN]))
        console().print(table)
        written += [path, folder / ("runs.csv" if name == "table" else f"{name}_runs.csv")]
    show(f"written: {', '.join(map(str, written))}")
    return 0
