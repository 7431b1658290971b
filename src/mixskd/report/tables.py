"""The tables of a comparison as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixskd.config import Experiment
from mixskd.files import write_text
from mixskd.report.published import Published, place_of, published, published_in
from mixskd.report.runs import Repeated, mean_and_std
from mixskd.text import safe, visible


class Spread(NamedTuple):
    """A mean with its standard deviation, if there is one."""

    mean: float
    std: float | None


class Number(NamedTuple):
    """A number that is shown with so many ``digits`` behind the point."""

    value: float
    digits: int = 0


Cell = str | Number | Spread | None
Table = list[dict[str, Cell]]


def accuracy(lines: Sequence[Repeated], paper_table: str | None = None, suites: Sequence[str] = ()) -> Table:
    """Top-1 in per cent over the seeds, of what is deployed and of the best epoch, and what is published."""
    columns: dict[str, list[Cell]] = {}
    for name in suites:
        columns |= _headlines(lines, name)
    return [
        {
            **_place(line),
            "seeds": ", ".join(str(seed) for seed in sorted(r.experiment.run.seed for r in line.results)),
            "split": line.results[0].split,
            "top-1 (%)": Spread(*mean_and_std([result.top1 for result in line.results])),
            "best epoch (%)": Spread(*mean_and_std([result.best["top1"] for result in line.results])),
            "published (%)": Spread(value.top1, value.std) if (value := published(line.experiment)) else None,
            **_beside(line, paper_table),
            **{title: cells[index] for title, cells in columns.items()},
        }
        for index, line in enumerate(lines)
    ]


def _beside(line: Repeated, paper_table: str | None) -> dict[str, Cell]:
    """The column of a table of the paper that has other data or another backbone, if one is asked for."""
    if paper_table is None:
        return {}
    value = published_in(paper_table, line.experiment)
    return {f"{paper_table}: {place_of(paper_table)} (%)": Number(value.top1, 2) if value else None}


def _headlines(lines: Sequence[Repeated], suite: str) -> dict[str, list[Cell]]:
    """The column of a suite: the name of its headline, and of each line the mean over the runs that have one."""
    title, cells = suite, list[Cell]()
    for line in lines:
        paths = [result.folder / "evaluation" / f"{suite}.json" for result in line.results]
        found = [json.loads(path.read_text(encoding="utf-8"))["headline"] for path in paths if path.exists()]
        cells.append(Spread(*mean_and_std([headline["value"] for headline in found])) if found else None)
        title = f"{suite}: {found[0]['name']}" if found else title
    return {title: cells}


def cost(lines: Sequence[Repeated]) -> Table:
    """What a run of each line costs, the mean over its seeds where they differ."""
    return [
        {
            **_place(line),
            "parameters": Number(line.cost.inference_parameters),
            "in training": Number(line.cost.training_parameters),
            "MFLOPs an image": Number(line.cost.inference_flops / 1e6, 1),
            "MFLOPs an original in training": Number(line.cost.training_flops / 1e6, 1),
            "originals an update": Number(line.experiment.run.batch_size),
            "images forwarded an original": Number(line.cost.images),
            "updates": Number(line.mean("updates")),
            "originals seen": Number(line.mean("images")),
            "images forwarded": Number(line.mean("images") * line.cost.images),
            "originals/s": Number(line.mean("images_per_second")),
            "time (s)": Number(line.mean("seconds")),
        }
        for line in lines
    ]


def single_runs(lines: Sequence[Repeated]) -> Table:
    """One row a run."""
    return [
        {
            **_place(line),
            "seed": Number(result.experiment.run.seed),
            "split": result.split,
            "top-1 (%)": Number(result.top1, 2),
            "best epoch (%)": Number(result.best["top1"], 2),
            "best epoch": Number(result.best["epoch"]),
            "epochs": Number(result.experiment.run.epochs),
            "updates": Number(result.summary["updates"]),
            "originals seen": Number(result.summary["images"]),
            "images forwarded": Number(result.summary["images"] * line.cost.images),
            "originals/s": Number(result.summary["images_per_second"], 1),
            "time (s)": Number(result.summary["seconds"], 1),
            "device": result.summary["device"],
            "precision": result.summary["precision"],
            "threads": Number(result.summary["threads"]),
        }
        for line in lines
        for result in line.results
    ]


def notes(lines: Sequence[Repeated]) -> list[str]:
    """What a reader of the tables must know."""
    found = [
        "± is the sample standard deviation (ddof 1) over the seeds. Top-1 is that of the deployed weights on the "
        "named split: the weights of the last epoch, or where there is a val split those of the best epoch on val.",
        "Best epoch: the highest top-1 of the epochs that were scored, on val where there is one, else on test. It is "
        "then chosen on the images that it is measured on.",
        "One multiplication with its addition is two FLOPs; training counts forward and backward passes. Originals are "
        "the images that the loader draws; a method forwards views, partners or mixes beside them. Time and rate are "
        "those of a run among others on the same machine, evaluations included.",
    ]
    values = [(line.experiment, value) for line in lines if (value := published(line.experiment)) is not None]
    if values:
        found.append("Published: " + "; ".join(sorted({value.source for _, value in values})) + ".")
    if others := sorted({text for pair in values if (text := _other_protocol(*pair))}):
        found.append(f"The published runs saw all training images, for the paper's epochs. Here: {'; '.join(others)}.")
    return found


def _other_protocol(experiment: Experiment, value: Published) -> str:
    parts = []
    if experiment.data.per_class is not None:
        parts.append(f"{experiment.data.per_class} images a class")
    if experiment.run.epochs != value.epochs:
        parts.append(f"{experiment.run.epochs} epochs in place of {value.epochs}")
    return ", ".join(parts)


def _place(line: Repeated) -> dict[str, Cell]:
    return {"method": line.label, "backbone": line.experiment.backbone, "policy": line.experiment.data.augment}


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown; numbers to the right."""
    columns = list(table[0])
    sides = ["---" if isinstance(table[0][c], str) else "---:" for c in columns]
    rows = [[_markdown_cell(row[column]) for column in columns] for row in table]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [columns, sides, *rows])


def _markdown_cell(cell: Cell) -> str:
    return safe(cell, "markdown") if isinstance(cell, str) else _text(cell, "{:,.{}f}", "{:.2f} ± {:.2f}")


def latex(table: Table) -> str:
    """A ``tabular`` that needs no package."""
    columns = list(table[0])
    sides = "".join("l" if isinstance(table[0][c], str) else "r" for c in columns)
    lines = [f"\\begin{{tabular}}{{{sides}}}", "\\hline", " & ".join(map(escape, columns)) + r" \\", "\\hline"]
    lines += [" & ".join(_latex_cell(row[column]) for column in columns) + r" \\" for row in table]
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])


def _latex_cell(cell: Cell) -> str:
    return escape(cell) if isinstance(cell, str) else _text(cell, "{:.{}f}", r"${:.2f} \pm {:.2f}$")


def _text(cell: Cell, number: str, spread: str) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Number):
        return number.format(*cell)
    return f"{cell.mean:.2f}" if cell.std is None else spread.format(*cell)


def escape(text: str) -> str:
    """``text`` for LaTeX."""
    return safe(text, "latex")


def plain_rows(table: Table) -> list[dict[str, Any]]:
    """The table as plain values; a spread gives a mean and a deviation (``COLUMN std``)."""
    rows = []
    for row in table:
        values: dict[str, Any] = {}
        for column, cell in row.items():
            if isinstance(cell, Spread) or (cell is None and column == "published (%)"):
                values[column], values[f"{column} std"] = cell or (None, None)
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


def write_tables(
    lines: Sequence[Repeated], folder: Path, paper_table: str | None = None, suites: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Write table.md, table.csv, table.tex and runs.csv into ``folder``; the rows of table.csv.

    With ``paper_table``, the values that it prints for the same methods stand beside ours; with ``suites``, the
    headline of each, from the runs' folders.
    """
    tables = accuracy(lines, paper_table, suites), cost(lines)
    whole = [left | right for left, right in zip(*tables, strict=True)]
    said = notes(lines)
    write_text(folder / "table.md", "\n".join([*map(markdown, tables), *(f"{visible(note)}\n" for note in said)]))
    write_text(folder / "table.csv", comma_separated(whole))
    write_text(folder / "table.tex", "\n".join([*map(latex, tables), *(f"% {visible(note)}" for note in said), ""]))
    write_text(folder / "runs.csv", comma_separated(single_runs(lines)))
    return plain_rows(whole)
