"""The command line: one verb, one function. torch is imported only when a verb needs it."""

from __future__ import annotations

import argparse
import atexit
import gc
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mixskd import config
from mixskd.cli import compare as comparison
from mixskd.cli import deploy as deploying
from mixskd.cli import dry_run, find_lr, transfer, tune
from mixskd.cli import evaluate as evaluation
from mixskd.cli import export as exporting
from mixskd.cli import report as reporting
from mixskd.cli.option_help import add_settings_help, help_last
from mixskd.config import recipes
from mixskd.config.registry import METHODS, check_method
from mixskd.config.task_kinds import BY_VERB, kind_of
from mixskd.config.trusted_backbones import remember_typed
from mixskd.errors import UserError, exit_code, nearest
from mixskd.errors.text import safe, to_json
from mixskd.runtime.version import __version__

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


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are the user's, in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def train(arguments: argparse.Namespace) -> None:
    """Train and print the folder of the run."""
    experiment = experiment_from(arguments)
    if arguments.print_config:
        print(config.to_yaml(experiment), end="")
        return
    remarks = [arguments.chosen] if arguments.chosen else []
    if arguments.dry_run:
        dry_run.rehearse(experiment, arguments, remarks)
        return
    from mixskd.training.run import train as run

    summary = run(experiment, resume=arguments.resume, overwrite=arguments.overwrite, remarks=remarks)
    if "scores" not in summary:  # one of several processes, but the first speaks for them
        return
    print(f"{said(summary)}\nmodel: {Path(summary['out']) / 'model.safetensors'}")


def said(summary: dict[str, Any]) -> str:
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


def benchmark(arguments: argparse.Namespace) -> None:
    """Time the training step in several ways, print a table and write the figures."""
    experiment = experiment_from(arguments)
    from mixskd.benchmarking.benchmark import benchmark as run
    from mixskd.benchmarking.table import show
    from mixskd.runtime.files import check_writable, write_text

    if arguments.report:
        check_writable(Path(arguments.report))
    report = run(experiment, variants=arguments.variants, rounds=arguments.rounds)
    show(report)
    if arguments.report:
        write_text(Path(arguments.report), to_json(report, indent=2) + "\n")


def show_data(arguments: argparse.Namespace) -> None:
    """Draw what the network will see and print the file."""
    experiment = experiment_from(arguments)
    from mixskd.reporting.show_data import show_data as run

    print(safe(run(experiment, arguments.picture, images=arguments.images), "terminal"))


def list_things(arguments: argparse.Namespace) -> None:
    """Print what there is of a kind."""
    from mixskd.reporting.listing import LISTINGS, library_backbones

    more = 0
    if arguments.pattern is None:
        rows = LISTINGS[arguments.kind]()
    elif arguments.kind == "backbones":
        rows, more = library_backbones(arguments.pattern)
    else:
        raise UserError(f"only backbones take a pattern; leave out {arguments.pattern!r}")
    if arguments.json:
        print(to_json(rows))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(f"{value:,}" if isinstance(value, int) else str(value)) for value in row.values()))
    Console().print(table)
    if more:
        print(f"and {more} more; a narrower pattern shows them")


def experiment_from(arguments: argparse.Namespace) -> config.Experiment:
    """The experiment that recipe, ``--config`` and flags describe; each overrides the one before it.

    Without a recipe or a configuration, it starts from the recipe that fits the data, unless a run is resumed.
    """
    given: dict[str, Any] = {}
    for flag, key in SHORT_FLAGS.items():
        if (value := getattr(arguments, flag.replace("-", "_"), None)) is not None:
            given[key] = value
    if arguments.skip_bad_images:
        given["data.skip_bad_images"] = True
    settings = config.nest(given | arguments.dotted)
    remember_typed(settings.get("backbone"))
    if arguments.config:
        settings = config.merge(config.nest(config.read_yaml(Path(arguments.config))), settings)
    task = BY_VERB.get(arguments.verb)
    check_method(settings.get("method", {}).get("name"), METHODS if task is None else task.networks)
    from mixskd.config.build import build_experiment

    data, weights, out = settings.get("data", {}).get("source"), settings.get("weights"), settings.get("out")
    goes_on = arguments.resume and out and (Path(out) / "config.yaml").is_file()
    name, arguments.chosen = arguments.recipe, f"recipe: {arguments.recipe}" if arguments.recipe else ""
    if not (name or arguments.config or goes_on):
        name = recipes.fitting(data, weights)
        other = f"to use another, name it: mixskd {arguments.verb} NAME"
        arguments.chosen = f"recipe: {name}, which fits the data; {other}"
    return build_experiment(config.merge(recipes.load(name) if name else {}, settings), resume=arguments.resume)


def split_dotted(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words without ``--optim.lr 0.05`` or ``--optim.lr=0.05``, and those as ``{"optim.lr": "0.05"}``."""
    rest, given, words = [], {}, list(words)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--") or "." not in name:
            rest.append(name + equals + value)
            continue
        if not equals:
            if not words:
                raise UserError(f"{name} needs a value")
            value = words.pop(0)
        given[name[2:].replace("-", "_")] = value
    return rest, given


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="mixskd", description="Train image classifiers by self-knowledge distillation.")
    parser.add_argument("--version", action="version", version=f"mixskd {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of any error; works with every verb")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, function: Callable[[argparse.Namespace], int | None], summary: str, **more: Any
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False, **more)
        added.set_defaults(function=function)
        return added

    def experiment_flags(p: argparse.ArgumentParser, methods: Sequence[str] = tuple(METHODS)) -> None:
        add_settings_help(p, methods)
        p.add_argument("recipe", nargs="?", help=f"the recipe to start from: {', '.join(recipes.names())}")
        p.add_argument("--data", help="a data set's name, an image folder, an .npz file, or .tar shards")
        p.add_argument(
            "--backbone",
            help="see mixskd list backbones; or timm/NAME, torchvision/NAME",
        )
        p.add_argument("--weights", help="weights to start from: a run's folder, a file of weights, or pretrained")
        p.add_argument("--method", help="the name of the method; the help without --method lists all names")
        p.add_argument("--batch-size", help="original images per update")
        p.add_argument("--seed", help="the seed of weights, order, augmentation and mixing")
        p.add_argument("--config", metavar="FILE.yaml", help="settings that override the recipe; flags override them")
        p.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out and count them")

    p = verb("train", train, "Train a classifier; with no argument, MixSKD on the embedded digits.", add_help=False)
    experiment_flags(p)
    p.add_argument("--epochs", help="passes over the training images")
    p.add_argument("--out", help="the run's folder; runs/... by default")
    p.add_argument("--resume", action="store_true", help="continue the run in --out, with its settings")
    p.add_argument("--overwrite", action="store_true", help="remove the run in --out and start again")
    p.add_argument("--print-config", action="store_true", help="print the whole experiment as YAML and stop")
    dry_run.add_flag(p)

    summary = "Time the training step on this machine, with each optimisation on and off."
    p = verb("benchmark", benchmark, summary, add_help=False)
    experiment_flags(p)
    p.set_defaults(resume=False)
    p.add_argument("--variants", help="comma-separated names, such as plain,default; all usual ones by default")
    p.add_argument("--rounds", type=int, default=10, help="rounds of measurement for each variant")
    p.add_argument("--out", dest="report", metavar="FILE.json", help="where to write the figures")

    p = verb("compare", comparison.compare, "Compare methods over seeds; with no argument, on the embedded digits.")
    comparison.add_flags(p)

    for name, what in (("detect", "boxes"), ("segment", "masks")):
        summary = f"Train, score and use a network that finds {what}, on a backbone that was trained here or elsewhere."
        p = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        transfer.add_flags(p, name, experiment_flags, experiment_from)

    summary = "Score a trained classifier, or examine it with suites."
    p = verb("evaluate", evaluation.evaluate, summary, add_help=False)
    evaluation.add_flags(p)

    p = verb("tune", tune.tune, "Search for a method and settings that suit the images.", add_help=False)
    experiment_flags(p)
    tune.add_flags(p, experiment_from)

    p = verb("find-lr", find_lr.find_lr, "Suggest a learning rate by a range test.", add_help=False)
    experiment_flags(p)
    find_lr.add_flags(p, experiment_from)

    p = verb("report", reporting.report, "Show finished runs in one HTML file.")
    reporting.add_report_flags(p)

    p = verb("show-data", show_data, "Draw what the network will see, before anything is trained.", add_help=False)
    experiment_flags(p)
    p.set_defaults(resume=False)
    p.add_argument("--images", type=int, default=8, help="rows of the picture")
    p.add_argument("--out", dest="picture", default="data.png", metavar="FILE.png", help="data.png by default")

    p = verb("predict", deploying.predict, "Name the likeliest classes of images.")
    deploying.add_predict_flags(p)

    p = verb("calibrate", deploying.calibrate, "Fit a temperature and a threshold for predict on the validation split.")
    deploying.add_calibrate_flags(p)

    p = verb("export", exporting.export, "Write the classifier for use without mixskd, and check the copy.")
    exporting.add_flags(p)

    p = verb("push", deploying.push, "Publish a classifier with a model card on the Hugging Face Hub, or in a folder.")
    deploying.add_push_flags(p)

    p = verb("list", list_things, "List the methods, backbones, data sets, recipes, grids or suites.")
    p.add_argument("kind", choices=["methods", "backbones", "datasets", "recipes", "grids", "suites"])
    p.add_argument("pattern", nargs="?", help="models of a library, such as 'timm/convnext*' or 'torchvision/*'")
    p.add_argument("--json", action="store_true")
    for name, added in verbs.choices.items():
        if name not in BY_VERB:  # their actions have their own
            added.set_defaults(usage=added.format_usage())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a user's mistake or what the machine lacks, 70 for a bug
    of mixskd, 128 + N after signal N, 1 if a run failed. ``--debug`` shows the traceback of any of them.
    """
    atexit.register(gc.freeze)  # a last collection over all of torch's objects would take a second or two
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    return exit_code(lambda: _act([word for word in words if word != "--debug"] or ["--help"]), debug=debug)


def _act(argv: Sequence[str]) -> int | None:
    words, dotted = split_dotted(help_last(argv))
    arguments, unknown_words = build_parser().parse_known_args(words)
    if not hasattr(arguments, "recipe") and not hasattr(arguments, "suite"):
        unknown_words += [f"--{key}" for key in dotted]
    if unknown_words:
        flags = [*re.findall(r"--[\w-]+", arguments.usage), *(f"--{key}" for key in config.known_keys())]
        word = next((w for w in unknown_words if w.startswith("-")), unknown_words[0])
        raise UserError(f"unknown argument {word!r}{nearest(word, flags)}; see mixskd {arguments.verb} --help")
    arguments.dotted = dotted
    return arguments.function(arguments)
