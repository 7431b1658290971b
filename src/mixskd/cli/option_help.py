"""``--help`` with the options of what another flag names: of a method, or of suites. Only these need torch."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from mixskd.config.registry import check_method
from mixskd.config.settings import WIDTH, default_text, fields_of, help_text, section, wrapped

About = Callable[[argparse.Namespace, str], str]
FLAGS = ("-h", "--help")


class OptionHelp(argparse.Action):
    """Ends the help with ``about(given, command)``: the flags given before it, and the command, as ``mixskd train``."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, about: About, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.about = about

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = self.about(namespace, parser.prog)
        parser.print_help()
        parser.exit()


def add_settings_help(p: argparse.ArgumentParser, methods: Sequence[str], about: About | None = None) -> None:
    """Give ``p`` a ``--help`` that explains every setting, and the options of the one of ``methods`` that is named.

    The explanation is ``about(given, command)`` if it is given.
    """

    def every_setting(given: argparse.Namespace, command: str) -> str:
        own = choice_of_methods(methods, command) if given.method is None else method_text(given.method, methods)
        return f"Every setting has a flag with its dotted name:\n\n{help_text()}\n{own}"

    what = "explain every setting, with --method NAME also those of that method, and stop"
    p.add_argument(*FLAGS, action=OptionHelp, about=about or every_setting, help=what)


def choice_of_methods(methods: Sequence[str], command: str) -> str:
    """How to see the hyper-parameters of each of the ``methods``."""
    how = f"Each method has its own hyper-parameters. {command} --help --method NAME explains them; NAME is one of"
    return "\n".join([*wrapped(how, WIDTH), *(f"  {line}" for line in wrapped(", ".join(methods), WIDTH))])


def method_text(name: str, methods: Sequence[str]) -> str:
    """The hyper-parameters of the method ``name``. Raises UserError for one that is unknown."""
    check_method(name, methods)
    from mixskd.methods import method_class

    kind = method_class(name).Config
    text = options_text(f"Hyper-parameters of {name}", kind, "method.")
    for preset, values in getattr(kind, "PRESETS", {}).items():
        changed = ", ".join(f"{key} {default_text(value)}" for key, value in values.items())
        text += "".join(f"  {line}\n" for line in wrapped(f"preset {preset}: {changed or 'the defaults above'}", WIDTH))
    return text


def options_text(title: str, kind: type, prefix: str) -> str:
    """The fields of the dataclass ``kind`` under ``title``."""
    options = fields_of(kind, prefix)
    return section(title, options) if options else f"{title}: none\n"
