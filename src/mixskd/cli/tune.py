"""The verb ``tune`` of the command line. It imports neither torch nor Optuna, so that help starts fast."""

import argparse

from mixskd.cli.experiment import add_experiment_flags, experiment_from
from mixskd.cli.launching import add_launcher_flags, launcher_from
from mixskd.config.trusted_backbones import remember_typed
from mixskd.errors.text import safe

SUMMARY = "Search for a method and settings that suit the images."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_experiment_flags(p)
    p.add_argument("--epochs", help="passes over the training images of the recipe's own run, which is the last rung")
    p.add_argument("--hours", type=float, help="hours of this call; the same command again adds as many")
    p.add_argument("--trials", type=int, help="trials in the folder, those of earlier calls included")
    p.add_argument(
        "--operations", type=float, help="training operations (FLOPs) of all runs in the folder, such as 1e15"
    )
    p.add_argument("--methods", help="comma-separated, as in mixskd compare; some usual ones by default")
    p.add_argument("--backbones", help="comma-separated; that of the recipe by default")
    p.add_argument("--space", metavar="FILE.yaml", help="methods, backbones, and the values of each setting")
    p.add_argument("--folds", type=int, metavar="K", help="repeat the last rung over K folds of a cross-validation")
    p.add_argument("--refit", action="store_true", help="train the winner on train and val together")
    p.add_argument("--out", dest="folder", metavar="DIR", help="the folder of the search; runs/tune-DATA by default")
    add_launcher_flags(p)


def run(arguments: argparse.Namespace) -> None:
    """Search, and print the winner, its model and the leaderboard."""
    launcher = launcher_from(arguments)
    remember_typed(arguments.backbones)
    base = experiment_from(arguments)
    from mixskd.comparison.search.tune import tune

    found = tune(
        base, methods=arguments.methods, backbones=arguments.backbones, space=arguments.space, hours=arguments.hours,
        trials=arguments.trials, operations=arguments.operations, folds=arguments.folds, refit=arguments.refit,
        out=arguments.folder, **launcher,
    )  # fmt: skip
    print(safe(found.line, "terminal"))
    if found.best is not None and found.model is not None:
        print(f"recipe: {safe(found.best, 'terminal')}\nmodel: {safe(found.model / 'model.safetensors', 'terminal')}")
    print(f"leaderboard: {safe(found.folder / 'leaderboard.md', 'terminal')}")
