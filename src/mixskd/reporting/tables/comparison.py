"""The tables of a comparison as Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixskd.config import Experiment
from mixskd.config.task_kinds import KINDS, Kind
from mixskd.errors.text import visible
from mixskd.evaluation.stored_results import read_headline, read_suite
from mixskd.reporting.grouping import Repeated, mean_and_std, of_kind, unusual_settings
from mixskd.reporting.published import classification as paper
from mixskd.reporting.tables.cells import Cell, Number, Spread, Table, comma_separated, latex, markdown, plain_rows
from mixskd.reporting.tables.paired_differences import NOTE, difference_columns
from mixskd.reporting.tables.transfer import machine_columns, single_transfers, transfer, transfer_notes
from mixskd.runtime.files import write_text


def accuracy(
    lines: Sequence[Repeated], paper_table: str | None = None, suites: Sequence[str] = (), reference: str | None = None
) -> Table:
    """Top-1 in per cent over the seeds, of the deployed weights and of the best epoch, beside the published value.

    With ``reference``, the label of a line, also what each line gains over it.
    All scores of a row are on its split: the best epoch is left out where it was chosen on another one.
    """
    columns: dict[str, list[Cell]] = {}
    gains = {} if reference is None else difference_columns(lines, reference)
    for name in suites:
        columns |= _headlines(lines, name)
    if paper_table == paper.FGSM:
        columns |= _attacks(lines)
    divided = any(line.experiment.data.folds for line in lines)
    if any(own := unusual_settings(lines)):
        columns["other settings"] = [text or None for text in own]
    return [
        {
            **_place(line),
            "seeds": line.seeds,
            **({"folds": _folds(line)} if divided else {}),
            "split": line.results[0].split,
            "top-1 (%)": Spread(*mean_and_std([result.top1 for result in line.results])),
            **{title: cells[index] for title, cells in gains.items()},
            "best epoch (%)": _best(line),
            "published (%)": Spread(value.top1, value.std) if (value := paper.published(line.experiment)) else None,
            **_beside(line, paper_table),
            **{title: cells[index] for title, cells in columns.items()},
        }
        for index, line in enumerate(lines)
    ]


def _best(line: Repeated) -> Spread | None:
    """Top-1 of the best epochs, if they were scored on the split of the row."""
    same = all(result.best["split"] == result.split for result in line.results)
    return Spread(*mean_and_std([result.best["top1"] for result in line.results])) if same else None


def _beside(line: Repeated, paper_table: str | None) -> dict[str, Cell]:
    """The column of a table of the paper with other data or another backbone, if a table is named."""
    if paper_table is None or paper_table == paper.FGSM:
        return {}
    value = paper.published_in(paper_table, line.experiment)
    return {f"{paper_table}: {paper.place_of(paper_table)} (%)": Number(value.top1, 2) if value else None}


def _headlines(lines: Sequence[Repeated], suite: str) -> dict[str, list[Cell]]:
    """The column of a suite: the name of its headline, and of each line the mean over the runs that have one."""
    title, cells = suite, list[Cell]()
    for line in lines:
        paths = [result.folder / "evaluation" / f"{suite}.json" for result in line.results]
        found = [read_headline(path, suite) for path in paths if path.exists()]
        cells.append(Spread(*mean_and_std([headline["value"] for headline in found])) if found else None)
        title = f"{suite}: {found[0]['name']}" if found else title
    return {title: cells}


def _attacks(lines: Sequence[Repeated]) -> dict[str, list[Cell]]:
    """For each epsilon of both the paper and our runs: our mean and the value of the paper."""
    ours = [_attacked(line) for line in lines]
    theirs = [paper.published_fgsm(line.experiment, anywhere=True) for line in lines]
    columns: dict[str, list[Cell]] = {}
    for epsilon in sorted({e for values in ours for e in values} & {e for values in theirs for e in values}):
        columns[f"fgsm at {epsilon:g} (%)"] = [
            Spread(*mean_and_std(values[epsilon])) if epsilon in values else None for values in ours
        ]
        columns[f"{paper.FGSM}: {paper.place_of(paper.FGSM)} at {epsilon:g} (%)"] = [
            Number(values[epsilon], 1) if epsilon in values else None for values in theirs
        ]
    return columns


def _attacked(line: Repeated) -> dict[float, list[float]]:
    """Top-1 of the runs that have a result of the suite ``fgsm``, by epsilon."""
    found: dict[float, list[float]] = {}
    for result in line.results:
        path = result.folder / "evaluation" / "fgsm.json"
        for attack in read_suite(path, "fgsm")["attacks"] if path.exists() else ():
            found.setdefault(attack["epsilon"], []).append(attack["top1"])
    return found


def cost(lines: Sequence[Repeated]) -> Table:
    """The cost of each line; where seeds differ, the mean."""
    return [
        {
            **_place(line),
            "parameters": Number(line.cost.inference_parameters),
            "in training": Number(line.cost.training_parameters),
            "MFLOPs an image": Number(line.cost.inference_flops / 1e6, 1),
            "MFLOPs an original in training": Number(line.cost.training_flops / 1e6, 1),
            "originals an update": Number(line.experiment.run.batch),
            "images forwarded an original": Number(line.cost.images),
            "updates": Number(line.mean("updates")),
            "originals seen": Number(line.mean("images")),
            "images forwarded": Number(line.mean("images") * line.cost.images),
            "TFLOPs in training": Number(line.mean("images") * line.cost.training_flops / 1e12, 3),
            "originals/s": Number(line.mean("images_per_second")),
            "time (s)": Number(line.mean("seconds")),
        }
        for line in lines
    ]


def single_runs(lines: Sequence[Repeated]) -> Table:
    """One row a run."""
    divided = any(line.experiment.data.folds for line in lines)
    return [
        {
            **_place(line),
            "seed": Number(result.experiment.run.seed),
            **({"fold": Number(result.experiment.data.fold)} if divided else {}),
            "split": result.split,
            "top-1 (%)": Number(result.top1, 2),
            "best epoch (%)": Number(result.best["top1"], 2) if result.best["split"] == result.split else None,
            "best epoch": Number(result.best["epoch"]),
            "best epoch chosen on": str(result.best["split"]),
            "epochs": Number(result.experiment.run.epochs),
            "updates": Number(result.summary["updates"]),
            "originals seen": Number(result.summary["images"]),
            "images forwarded": Number(result.summary["images"] * line.cost.images),
            "originals/s": Number(result.summary["images_per_second"], 1),
            **machine_columns(result),
        }
        for line in lines
        for result in line.results
    ]


def notes(lines: Sequence[Repeated]) -> list[str]:
    """Notes under the tables."""
    found = [
        "± is the sample standard deviation (ddof 1) over the seeds. Top-1 is that of the deployed weights on the "
        "named split: the weights of the last epoch, or where there is a val split those of the best epoch on val.",
        "Best epoch: the highest top-1 of the epochs that were scored, chosen on the images that it is measured on. It "
        "is left out where the best epoch was chosen on val and the row is of test: one row, one split.",
        "One multiplication with its addition is two FLOPs; training counts forward and backward passes. Originals are "
        "the images that the loader draws; a method forwards views, partners or mixes beside them. Time and rate are "
        "those of a run among others on the same machine, evaluations included.",
    ]
    if any(line.experiment.data.folds for line in lines):
        found.append("With the folds of a cross-validation, ± is the deviation over seeds and folds together.")
    values = [(line.experiment, value) for line in lines if (value := paper.published(line.experiment)) is not None]
    if values:
        found.append("Published: " + "; ".join(sorted({value.source for _, value in values})) + ".")
    if others := sorted({text for pair in values if (text := _other_protocol(*pair))}):
        found.append(f"The published runs saw all training images, for the paper's epochs. Here: {'; '.join(others)}.")
    return found


def _other_protocol(experiment: Experiment, value: paper.Published) -> str:
    parts = []
    if experiment.data.per_class is not None:
        parts.append(f"{experiment.data.per_class} images a class")
    if experiment.run.epochs != value.epochs:
        parts.append(f"{experiment.run.epochs} epochs instead of {value.epochs}")
    return ", ".join(parts)


def _folds(line: Repeated) -> Cell:
    """The number of folds of a cross-validation that have a run, of all; None without one."""
    folds = line.experiment.data.folds
    return None if folds is None else f"{len({r.experiment.data.fold for r in line.results})} of {folds}"


def _place(line: Repeated) -> dict[str, Cell]:
    return {"method": line.label, "backbone": line.experiment.backbone, "policy": line.experiment.data.augment}


def write_tables(
    lines: Sequence[Repeated],
    folder: Path,
    paper_table: str | None = None,
    suites: Sequence[str] = (),
    reference: str | None = None,
) -> list[dict[str, Any]]:
    """Write table.md and table.tex into ``folder``, and their rows and the single runs as CSV; the rows of all tables.

    Classifiers are in table.csv and runs.csv, detectors in detection.csv and detection_runs.csv, and segmentation
    networks likewise. With ``paper_table``, its values of the same methods are shown beside ours; with
    ``suites``, the headline of each, from the runs' folders; with ``reference``, the label of a line, the differences
    to it.
    """
    as_markdown, as_latex, rows = list[str](), list[str](), list[dict[str, Any]]()
    classifiers = of_kind(lines, None)
    kinds: list[Kind | None] = [kind for kind in (None, *KINDS) if of_kind(lines, kind)]
    for kind in kinds:
        if kind is None:
            shown = [accuracy(classifiers, paper_table, suites, reference), cost(classifiers)]
            heading, names = "Classification", ("table", "runs")
            single, below = single_runs(classifiers), notes(classifiers)
            below += [NOTE] if reference is not None else []
            below += [paper.FGSM_NOTE] if paper_table == paper.FGSM else []
        else:
            shown = [transfer(lines, kind, paper_table)]
            heading, names = kind.name.capitalize(), (kind.name, f"{kind.name}_runs")
            single, below = single_transfers(lines, kind), transfer_notes(lines, kind)
        whole = [{key: cell for row in together for key, cell in row.items()} for together in zip(*shown, strict=True)]
        rows += plain_rows(whole)
        write_text(folder / f"{names[0]}.csv", comma_separated(whole))
        write_text(folder / f"{names[1]}.csv", comma_separated(single))
        title = [f"## {heading}\n"] if len(kinds) > 1 else []
        as_markdown += [*title, *map(markdown, shown), *(f"{visible(note)}\n" for note in below)]
        as_latex += [f"% {heading}", *map(latex, shown), *(f"% {visible(note)}" for note in below), ""]
    write_text(folder / "table.md", "\n".join(as_markdown))
    write_text(folder / "table.tex", "\n".join(as_latex))
    return rows
