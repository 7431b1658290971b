"""The parts of a page as plain values, and the page from them by the templates beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from mixskd.drawing.plots import Plot
from mixskd.errors.text import visible
from mixskd.reporting.tables.cells import Table, cell_text

PAGE_WIDTH = 1150  # px for a table on a screen of 1,400 px
LETTER, PADDING = 7.2, 20  # px, as style.css has them
WIDEST_CELL, WIDEST_HEAD = 384, 160  # px, likewise


@dataclass(frozen=True)
class Block:
    """One part of a section.

    Args:
        kind: ``text``, ``note``, ``published``, ``list``, ``code``, ``table``, ``figures``, ``pictures`` or ``pairs``
            of pictures, ``batch`` of training images, or ``fold``.
        value: what is shown; of a ``fold`` the blocks inside it.
        title: the line of a ``fold`` that opens it.
        open: whether a ``fold`` is open from the start.
    """

    kind: str
    value: Any
    title: str = ""
    open: bool = False


Content = list[Block]


def table(rows: Table) -> Content:
    """A table that is sorted by a click on a heading; nothing for no rows."""
    return [Block("table", rows)] if rows else []


def figures(plots: Sequence[Plot]) -> Content:
    """Figures side by side; nothing for none."""
    return [Block("figures", list(plots))] if plots else []


def fold(title: str, inside: Content, *, open: bool = False) -> Content:
    """A part that opens by a click."""
    return [Block("fold", inside, title, open)]


def column_groups(rows: Table) -> list[list[str]]:
    """The columns of a table in groups that fit the page; each later group begins with the first column again."""
    first, *others = rows[0]
    groups, width = [[first]], column_width(rows, first)
    for column in others:
        own = column_width(rows, column)
        if width + own > PAGE_WIDTH and len(groups[-1]) > 1:
            groups.append([first])
            width = column_width(rows, first)
        groups[-1].append(column)
        width += own
    return groups


def column_width(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    """An estimate in px of the width of a column, from the number of its letters."""
    longest = max(len(cell_text(row[column])) for row in rows)
    return max(min(longest * LETTER, WIDEST_CELL), min(len(column) * LETTER + 16, WIDEST_HEAD)) + PADDING


@cache
def environment() -> Environment:
    """The templates. Text of users gets no line ends and invisible characters; their own markup stays as it is."""
    made = Environment(
        loader=PackageLoader("mixskd.reporting.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    made.globals["newline"] = Markup("\n")
    made.filters |= {
        "anchor": lambda heading: heading.lower().replace(" ", "-"),
        "cell_text": cell_text,
        "column_groups": column_groups,
        "rows": lambda columns: list(zip(*columns, strict=True)),
    }
    return made


def render(title: str, sections: Mapping[str, Content]) -> str:
    """The whole page, ``sections`` by their headings."""
    return environment().get_template("report.html").render(title=title, sections=sections)


def render_blocks(content: Content) -> str:
    """A part of the page."""
    return str(environment().get_template("blocks.html").module.show(content))  # type: ignore[attr-defined]
