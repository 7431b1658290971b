"""``mixskd list``. Only the backbones of a library need torch."""

import argparse

from mixskd.errors import UserError
from mixskd.errors.terminal import console, show
from mixskd.errors.text import to_json, visible

SUMMARY = "List the methods, backbones, data sets, recipes, grids or suites."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    p.add_argument("kind", choices=["methods", "backbones", "datasets", "recipes", "grids", "suites"])
    p.add_argument("pattern", nargs="?", help="models of a library, such as 'timm/convnext*' or 'torchvision/*'")
    p.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    """Print a table of the things of one kind."""
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
    from rich.markup import escape
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(f"{v:,}" if isinstance(v, int) else visible(v)) for v in row.values()))
    console().print(table)
    if more:
        show(f"and {more} more; a narrower pattern shows them")
