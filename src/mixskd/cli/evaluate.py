"""``mixskd evaluate``. It imports no torch before it evaluates."""

import argparse
from typing import Any

from mixskd.cli.flags import count
from mixskd.cli.option_help import FLAGS, OptionHelp, options_text
from mixskd.cli.progress import suite_bars
from mixskd.config import merge
from mixskd.config.settings import WIDTH, wrapped
from mixskd.config.task_kinds import kind_of
from mixskd.errors import UserError, nearest, unknown
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json
from mixskd.evaluation.suites import SUITES

SUMMARY = "Score a trained classifier, or examine it with suites."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    what = "explain every flag, with --suite NAME also the options of that suite, and stop"
    p.add_argument(*FLAGS, action=OptionHelp, about=about_suites, help=what)
    p.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a .safetensors file with --data")
    p.add_argument("--suite", help=f"comma-separated, or all: {', '.join(SUITES)}")
    p.add_argument("--data", help="a data set, or a folder of classes; the run's data by default")
    p.add_argument("--split", help="train, val or test; test by default, else val")
    p.add_argument(
        "--flips", action="store_true",
        help="score the mean of the probabilities of an image and its mirror image, at twice the cost; not for suites",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="the seed of all random draws of a suite")
    p.add_argument("--batch-size", type=count, help="images at a time; chosen by the device if not given")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N; for suites")
    p.add_argument("--json", action="store_true")


def about_suites(given: argparse.Namespace, command: str) -> str:
    """The end of the help: the options of the suites that are named, or how to see them."""
    if given.suite is None:
        text = (
            "An option of a suite has a flag by its dotted name, such as --fgsm.epsilons 0.001,0.01. "
            f"{command} --help --suite NAME explains them. Results are written to RUN/evaluation/SUITE.json."
        )
        return "\n".join(wrapped(text, WIDTH))
    names = list(SUITES) if given.suite == "all" else [name.strip() for name in given.suite.split(",")]
    if strange := [name for name in names if name not in SUITES]:
        raise unknown("suite", strange[0], SUITES)
    return "\n".join(options_text(f"Options of {name}", SUITES[name], f"{name}.") for name in names)


def run(arguments: argparse.Namespace) -> None:
    """Print the scores of trained classifiers on one split, or the headline of each suite."""
    if arguments.suite is None:
        if arguments.dotted:
            raise UserError(f"--{next(iter(arguments.dotted))} is an option of a suite; name the suite with --suite")
        return _scores(arguments)
    if arguments.flips:
        raise UserError("--flips is for the scores alone; leave it out, or --suite, which examines the network itself")
    options = merge(arguments.dotted)
    for name, given in options.items():
        if name not in SUITES or not isinstance(given, dict):
            raise UserError(f"unknown argument '--{name}'{nearest(name, SUITES)}; see mixskd evaluate --help")
    from mixskd.evaluation.runner import run_suites

    with suite_bars(len(arguments.runs)) as progress:
        results = run_suites(
            arguments.runs, arguments.suite, options=options, data=arguments.data, split=arguments.split,
            batch_size=arguments.batch_size, seed=arguments.seed, device=arguments.device, progress=progress,
        )  # fmt: skip
    if arguments.json:
        print(to_json(results))
        return
    width = max(len(name) for name in results)
    for run, suites in results.items():
        for suite, result in suites.items():
            headline = result["headline"]
            where = f"{result['images']} images ({result['split']})"
            show(f"{run:{width}}  {suite:11}  {headline['name']}: {headline['value']:.2f}  on {where}")


def _scores(arguments: argparse.Namespace) -> None:
    from mixskd.evaluation.split_scores import evaluate

    found: dict[str, Any] = {}
    for path in arguments.runs:
        size = {} if arguments.batch_size is None else {"batch_size": arguments.batch_size}
        scores = found[path] = evaluate(path, arguments.data, split=arguments.split, flips=arguments.flips, **size)
        if not arguments.json:
            name = f"{path}: " if len(arguments.runs) > 1 else ""
            kind = kind_of("", scores["task"])
            named = f"top-1 {scores['top1']:.2f} %  top-5 {scores['top5']:.2f} %" if kind is None else kind.line(scores)
            show(f"{name}{named}  loss {scores['loss']:.4f}  on {scores['images']} images ({scores['split']})")
    if arguments.json:
        print(to_json(found if len(found) > 1 else next(iter(found.values()))))
