"""The flags that describe an experiment, and the experiment that they describe. It imports no torch."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixskd import config
from mixskd.cli.option_help import About, add_settings_help
from mixskd.config import recipes
from mixskd.config.build import build_experiment
from mixskd.config.registry import METHODS, check_method
from mixskd.config.settings import meaning_of
from mixskd.config.task_kinds import BY_VERB
from mixskd.config.trusted_backbones import remember_typed
from mixskd.errors import UserError

# Short names of settings, as flags.
SHORT_FLAGS = {
    "data": "data.source",
    "backbone": "backbone",
    "weights": "weights",
    "method": "method.name",
    "epochs": "run.epochs",
    "batch-size": "run.batch_size",
    "seed": "run.seed",
    "out": "out",
}


def add_short_flags(p: argparse.ArgumentParser, *flags: str, **meanings: str) -> None:
    """Give ``p`` those ``flags`` of SHORT_FLAGS, each with the meaning of its setting, or that in ``meanings``."""
    for flag in flags:
        p.add_argument(f"--{flag}", help=meanings.get(flag, meaning_of(SHORT_FLAGS[flag])).replace("%", "%%"))


def add_experiment_flags(
    p: argparse.ArgumentParser,
    methods: Sequence[str] = tuple(METHODS),
    about: About | None = None,
    data: str | None = None,
) -> None:
    """Give ``p`` the flags of all verbs that build an experiment; ``methods`` are those that its help names.

    ``about`` replaces the explanation of all settings, ``data`` that of ``--data``.
    """
    add_settings_help(p, methods, about)
    verb = p.prog.split()[1]
    known = [name for name in recipes.names() if verb not in BY_VERB or name.startswith(verb)]
    p.add_argument("recipe", nargs="?", help=f"the recipe to start from: {', '.join(known)}")
    meanings = {} if data is None else {"data": data, "method": " or ".join(methods)}
    add_short_flags(p, "data", "backbone", "weights", "method", "batch-size", "seed", **meanings)
    p.add_argument("--config", metavar="FILE.yaml", help="settings that override the recipe; flags override them")
    p.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out and count them")


def add_run_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verbs that train."""
    add_short_flags(p, "epochs", "out")
    p.add_argument("--resume", action="store_true", help="continue the run in --out, with its settings")
    p.add_argument(
        "--more-epochs", type=int, default=0, metavar="N",
        help="continue a finished run, named in place of a recipe or by --out, for N epochs; its schedule starts again",
    )  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="remove the run in --out and start again")
    p.add_argument("--print-config", action="store_true", help="print the whole experiment as YAML and stop")
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="do everything up to and including the first step, print what the run would do, and write nothing; "
        "no logging service is started",
    )


def check_recipe(name: str, verb: str, data: str | None) -> None:
    """Raises UserError for a folder in place of a recipe, also one with the name of a recipe that got no ``data``."""
    if not Path(name).is_dir() or (data is not None and name in recipes.names()):
        return
    if (Path(name) / "config.yaml").is_file():
        raise UserError(f"{name} is a run; --resume --out {name} continues it if it was stopped, and "
                        f"mixskd train {name} --more-epochs 10 if it is finished")  # fmt: skip
    also = f"; for the recipe of that name, write mixskd {verb} {name} --data FOLDER" if name in recipes.names() else ""
    raise UserError(f"there is a folder {name} here; to use its images, write mixskd {verb} --data {name}{also}")


def experiment_from(arguments: argparse.Namespace) -> config.Experiment:
    """The experiment that recipe, ``--config`` and flags describe; each overrides the one before it.

    Without a recipe or a configuration, it starts from the recipe that fits the data, unless a run is resumed.
    """
    if more := getattr(arguments, "more_epochs", 0):  # of the run that is named in place of a recipe
        if more < 0:
            raise UserError(f"--more-epochs must be 1 or more, not {more}")
        arguments.resume = True
        if arguments.recipe and not arguments.out:
            arguments.out, arguments.recipe = arguments.recipe, None
    resume = getattr(arguments, "resume", False)
    short = {key: getattr(arguments, flag.replace("-", "_"), None) for flag, key in SHORT_FLAGS.items()}
    given: dict[str, Any] = {key: value for key, value in short.items() if value is not None}
    if arguments.skip_bad_images:
        given["data.skip_bad_images"] = True
    flags = given | arguments.dotted
    remember_typed(flags.get("backbone"))
    settings = config.merge(config.read_yaml(Path(arguments.config)) if arguments.config else {}, flags)
    task = BY_VERB.get(arguments.verb)
    check_method(settings.get("method", {}).get("name"), METHODS if task is None else task.networks)
    data, weights, out = settings.get("data", {}).get("source"), settings.get("weights"), settings.get("out")
    continues = resume and out and (Path(out) / "config.yaml").is_file()
    if arguments.recipe:
        check_recipe(arguments.recipe, arguments.verb, data)
    name, arguments.chosen = arguments.recipe, f"recipe: {arguments.recipe}" if arguments.recipe else ""
    if not (name or arguments.config or continues):
        name = recipes.fitting(data, weights)
        other = f"to use another, name it: mixskd {arguments.verb} NAME"
        arguments.chosen = f"recipe: {name}, which fits the data; {other}"
    return build_experiment(config.merge(recipes.load(name) if name else {}, settings), resume=resume)
