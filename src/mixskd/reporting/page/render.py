"""The page from its sections, by the templates beside this file. Every text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from mixskd.errors.text import visible
from mixskd.reporting.page.blocks import Content, column_groups
from mixskd.reporting.tables.cells import cell_text


@cache
def environment() -> Environment:
    """The templates, with what they call."""
    made = Environment(
        loader=PackageLoader("mixskd.reporting.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=in_one_line,
    )  # fmt: skip
    made.globals["newline"] = Markup("\n")
    made.filters |= {
        "anchor": lambda heading: heading.lower().replace(" ", "-"),
        "cell_text": cell_text,
        "column_groups": column_groups,
        "rows": lambda columns: list(zip(*columns, strict=True)),
    }
    return made


def in_one_line(value: Any) -> Any:
    """Text of users without line ends and invisible characters; markup of the templates stays as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(title: str, sections: Mapping[str, Content]) -> str:
    """The whole page, ``sections`` by their headings."""
    return environment().get_template("report.html").render(title=title, sections=sections)


def render_blocks(content: Content) -> str:
    """A part of the page."""
    return str(environment().get_template("blocks.html").module.show(content))  # type: ignore[attr-defined]
