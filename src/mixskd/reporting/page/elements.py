"""The pieces of a page: text, tables, figures and parts that fold. All text passes through :func:`text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixskd.drawing.plots import Plot
from mixskd.errors.text import safe
from mixskd.reporting.tables.cells import Cell, Interval, Number, Spread, Table


def text(value: object) -> str:
    """``value`` as text of a page or of an attribute, whatever it holds."""
    return safe(value, "html")


def paragraph(value: object) -> str:
    return f"<p>{text(value)}</p>"


def note(value: object) -> str:
    """A remark in faint letters."""
    return f'<p class="note">{text(value)}</p>'


def table(rows: Table) -> str:
    """A table that sorts by a click on the head of a column; empty for no rows."""
    if not rows:
        return ""
    columns = list(rows[0])
    head = "".join(f'<th scope="col"><button type="button">{text(column)}</button></th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(column)) for column in columns)}</tr>\n" for row in rows)
    return f'<div class="wide"><table class="sorts"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if cell is None:
        return "<td>-</td>"
    if isinstance(cell, str):
        return f"<td>{text(cell)}</td>"
    if isinstance(cell, Number):
        return f'<td class="n" data-value="{cell.value}">{cell.value:,.{cell.digits}f}</td>'
    return f'<td class="n" data-value="{cell.mean}">{_spread(cell)}</td>'


def _spread(cell: Spread | Interval) -> str:
    if isinstance(cell, Interval):
        return f"{cell.mean:+.2f} [{cell.low:+.2f}, {cell.high:+.2f}]"
    return f"{cell.mean:.2f}" if cell.std is None else f"{cell.mean:.2f} ± {cell.std:.2f}"


def figure(plot: Plot) -> str:
    return f"<figure>{plot.svg()}<figcaption>{text(plot.caption)}</figcaption></figure>"


def figures(plots: Sequence[Plot]) -> str:
    return f'<div class="figures">{"".join(map(figure, plots))}</div>' if plots else ""


def folded(title: str, inside: str) -> str:
    """A part that opens by a click; ``inside`` is HTML."""
    return f"<details><summary>{text(title)}</summary>{inside}</details>"


def picture(address: str | None, caption: str) -> str:
    """A small picture, or a place without one; ``address`` is a ``data:`` address of our own."""
    shown = f'<img src="{text(address)}" alt="" loading="lazy">' if address else '<div class="none">no image</div>'
    return f"<figure>{shown}<figcaption>{text(caption)}</figcaption></figure>"


def page(title: str, sections: Mapping[str, str], style: str, script: str) -> str:
    """The whole page: ``sections`` is HTML by heading. The policy in its head forbids every request."""
    names = [heading.lower().replace(" ", "-") for heading in sections]
    links = "".join(f'<a href="#{text(n)}">{text(h)}</a>' for n, h in zip(names, sections, strict=True))
    parts = "".join(
        f'<section id="{text(name)}"><h2>{text(heading)}</h2>\n{inside}</section>\n'
        for name, (heading, inside) in zip(names, sections.items(), strict=True)
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style></head>\n"
        f"<body><h1>{text(title)}</h1>\n<nav>{links}</nav>\n<main>{parts}</main>\n<script>{script}</script></body></html>\n"
    )
