"""The cells of a table, and a table as Markdown, LaTeX and CSV."""

import csv
import io
from typing import Any, NamedTuple

from mixskd.errors.text import safe


class Spread(NamedTuple):
    """A mean with its standard deviation, if there is one."""

    mean: float
    std: float | None


class Interval(NamedTuple):
    """A mean difference and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class Number(NamedTuple):
    """A number, shown with ``digits`` decimal places."""

    value: float
    digits: int = 0


Cell = str | Number | Spread | Interval | None
Table = list[dict[str, Cell]]


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown; numbers to the right."""
    columns = list(table[0])
    sides = ["---" if isinstance(table[0][c], str) else "---:" for c in columns]
    rows = [
        [safe(row[c], "markdown") if isinstance(row[c], str) else cell_text(row[c]) for c in columns] for row in table
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [columns, sides, *rows])


def latex(table: Table) -> str:
    """A ``tabular`` that needs no package."""
    columns = list(table[0])
    sides = "".join("l" if isinstance(table[0][c], str) else "r" for c in columns)
    lines = [f"\\begin{{tabular}}{{{sides}}}", "\\hline", " & ".join(map(escape, columns)) + r" \\", "\\hline"]
    lines += [" & ".join(_latex_cell(row[column]) for column in columns) + r" \\" for row in table]
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])


def _latex_cell(cell: Cell) -> str:
    return escape(cell) if isinstance(cell, str) else cell_text(cell, "{:.{}f}", r"${:.2f} \pm {:.2f}$")


def cell_text(cell: Cell, number: str = "{:,.{}f}", spread: str = "{:.2f} ± {:.2f}") -> str:
    """A cell as plain text; a dash for an empty one."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Number):
        return number.format(*cell)
    if isinstance(cell, Interval):
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*cell)
    return f"{cell.mean:.2f}" if cell.std is None else spread.format(*cell)


def escape(text: str) -> str:
    """``text`` for LaTeX."""
    return safe(text, "latex")


def plain_rows(table: Table) -> list[dict[str, Any]]:
    """The table as plain values.

    A column of spreads gives one of means and one of deviations (``COLUMN std``), a column of intervals one of means
    and two of ends (``COLUMN from`` and ``COLUMN to``).
    """
    spread = {column for row in table for column, cell in row.items() if isinstance(cell, Spread)}
    intervals = {column for row in table for column, cell in row.items() if isinstance(cell, Interval)}
    rows = []
    for row in table:
        values: dict[str, Any] = {}
        for column, cell in row.items():
            if column in spread:
                values[column], values[f"{column} std"] = cell if isinstance(cell, Spread) else (None, None)
            elif column in intervals:
                ends = f"{column} from", f"{column} to"
                values[column], values[ends[0]], values[ends[1]] = (
                    cell if isinstance(cell, Interval) else (cell, None, None)
                )
            else:
                values[column] = cell.value if isinstance(cell, Number) else cell
        rows.append(values)
    return rows


def comma_separated(table: Table) -> str:
    """CSV of :func:`plain_rows`, in full precision."""
    rows, text = plain_rows(table), io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: safe(cell, "csv") if isinstance(cell, str) else cell for key, cell in row.items()} for row in rows
    )
    return text.getvalue()
