"""The command line: one module for each verb, put together here. torch is imported only when a verb needs it."""

from __future__ import annotations

import argparse
import atexit
import gc
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mixskd import config
from mixskd.cli import (
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
from mixskd.cli.option_help import help_last
from mixskd.errors import UserError, exit_code, nearest
from mixskd.runtime.version import __version__

# Each module has SUMMARY, add_flags(parser) and run(arguments); detect and segment share one, with actions.
VERBS: dict[str, Any] = {
    "train": train, "benchmark": benchmark, "compare": compare, "detect": "boxes", "segment": "masks",
    "tune": tune, "find-lr": find_lr,
    "probe": probe, "evaluate": evaluate, "report": report, "show-data": show_data, "predict": predict,
    "calibrate": calibrate, "export": export, "push": push, "list": listing,
}  # fmt: skip
WITH_OWN_HELP = (train, benchmark, evaluate, show_data, tune, find_lr)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError for a mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


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
