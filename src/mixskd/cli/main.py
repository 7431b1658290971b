"""The command line: one module for each verb, put together here. torch is imported only when a verb needs it."""

import argparse
import atexit
import gc
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mixskd import config
from mixskd.cli import (
    average,
    benchmark,
    calibrate,
    compare,
    evaluate,
    export,
    find_lr,
    predict,
    probe,
    push,
    report,
    show_data,
    train,
    transfer,
    tune,
)
from mixskd.cli import list as listing
from mixskd.cli.option_help import FLAGS as HELP_FLAGS
from mixskd.errors import UserError, exit_code, nearest
from mixskd.runtime.version import __version__

# Each module has SUMMARY, add_flags(parser) and run(arguments); detect and segment share one, with actions.
VERBS: dict[str, Any] = {
    "train": train, "benchmark": benchmark, "compare": compare, "detect": "boxes", "segment": "masks",
    "tune": tune, "find-lr": find_lr,
    "probe": probe, "evaluate": evaluate, "report": report, "show-data": show_data, "average": average,
    "predict": predict, "calibrate": calibrate, "export": export, "push": push, "list": listing,
}  # fmt: skip
WITH_OWN_HELP = (train, benchmark, evaluate, show_data, tune, find_lr)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError for a mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="mixskd", description="Train image classifiers by self-knowledge distillation.")
    parser.add_argument("--version", action="version", version=f"mixskd {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of any error; works with every verb")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        if isinstance(module, str):
            text = f"Train, score and use a network that finds {module}, on a backbone that was trained before."
            p = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
            transfer.add_flags(p, name)
            continue
        p = verbs.add_parser(
            name, help=module.SUMMARY, description=module.SUMMARY, allow_abbrev=False,
            add_help=module not in WITH_OWN_HELP,
        )  # fmt: skip
        module.add_flags(p)
        p.set_defaults(function=module.run, usage=p.format_usage())
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command; ``dotted`` has its ``--optim.lr 0.05`` or ``--optim.lr=0.05`` as ``optim.lr``.

    ``--help`` is read after all flags that it may explain. Raises UserError for an unknown word.
    """
    helps = [word for word in words if word in HELP_FLAGS]
    rest, dotted, unread = [], {}, [word for word in words if word not in HELP_FLAGS]
    while unread:
        name, equals, value = unread.pop(0).partition("=")
        if not name.startswith("--") or "." not in name:
            rest.append(name + equals + value)
            continue
        if not equals:
            if not unread:
                raise UserError(f"{name} needs a value")
            value = unread.pop(0)
        dotted[name[2:].replace("-", "_")] = value
    arguments, unknown_words = build_parser().parse_known_args(rest + helps)
    if not hasattr(arguments, "recipe") and not hasattr(arguments, "suite"):
        unknown_words += [f"--{key}" for key in dotted]
    if unknown_words:
        flags = [*re.findall(r"--[\w-]+", arguments.usage), *(f"--{key}" for key in config.known_keys())]
        word = next((w for w in unknown_words if w.startswith("-")), unknown_words[0])
        raise UserError(f"unknown argument {word!r}{nearest(word, flags)}; see mixskd {arguments.verb} --help")
    arguments.dotted = dotted
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a user's mistake or what the machine lacks, 70 for a bug
    of mixskd, 128 + N after signal N, 1 if a run failed. ``--debug`` shows the traceback of any of them.
    """
    atexit.register(gc.freeze)  # a last collection over all of torch's objects would take a second or two
    words = list(sys.argv[1:] if argv is None else argv)

    def act() -> int | None:
        arguments = parse([word for word in words if word != "--debug"] or ["--help"])
        code: int | None = arguments.function(arguments)
        return code

    return exit_code(act, debug="--debug" in words)
