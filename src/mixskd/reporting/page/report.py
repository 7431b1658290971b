"""The report: one HTML file about finished runs. It needs no other file and no network."""

from collections.abc import Sequence
from pathlib import Path

from mixskd.config import to_yaml
from mixskd.config.task_kinds import KINDS
from mixskd.drawing.plots import Plot
from mixskd.errors import UserError
from mixskd.errors.text import counted
from mixskd.reporting.evidence import Evidence, Readable, read_evidence
from mixskd.reporting.grouping import Repeated, of_kind, unusual_settings
from mixskd.reporting.page.blocks import Block, Content, figures, fold, render, table
from mixskd.reporting.page.example_images import example_section, training_image_section
from mixskd.reporting.page.mistakes import mistake_section, suspect_section
from mixskd.reporting.page.search import search_section
from mixskd.reporting.plots.colours import Looks
from mixskd.reporting.plots.curves import cost_plot, head_plots, operation_plots, score_plots, term_plots
from mixskd.reporting.plots.suites import suite_plots
from mixskd.reporting.published.classification import FGSM, FGSM_NOTE
from mixskd.reporting.published.transfer import TABLE
from mixskd.reporting.tables import comparison as tables
from mixskd.reporting.tables.cells import Number, Table
from mixskd.reporting.tables.suites import suite_tables
from mixskd.reporting.tables.transfer import single_transfers, transfer, transfer_notes
from mixskd.runtime.files import check_writable, write_text

WORST = 10
MOST_ROWS = 12  # of a suite's table that is open from the start
TITLES = {
    "accuracy": "Confusion", "calibration": "Reliability", "fgsm": "Robustness", "pgd": "Robustness",
    "corruption": "Common corruptions", "linearity": "Linearity", "confidence": "Confidence on mistakes",
    "features": "Frozen features", "ood": "Images of another data set",
}  # fmt: skip


def write_report(
    runs: Sequence[str | Path], out: str | Path = "report.html", *, figures: str | Path | None = None
) -> Path:
    """Write the report of finished runs to ``out``, and its figures as SVG and PNG into the folder ``figures``.

    ``runs`` are folders of runs, or folders of such. Raises UserError for a folder without a finished run.
    """
    out, folder = Path(out), None if figures is None else Path(figures)
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, such as {out / 'report.html'}")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the figures")
    evidence = read_evidence(runs)
    check_writable(out)
    sections, plots = compose(evidence)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            plot.write(folder)
    write_text(out, render(f"mixskd: {counted(len(evidence.runs), 'run')}", sections))
    return out


def compose(evidence: Evidence) -> tuple[dict[str, Content], list[Plot]]:
    """The sections by heading, in order, and all figures in them."""
    classifiers, looks = of_kind(evidence.lines, None), Looks(evidence)
    curves, heads, terms = score_plots(evidence, looks), head_plots(evidence), term_plots(evidence)
    cost = [cost_plot(classifiers, looks), *operation_plots(evidence, looks)] if classifiers else []
    suites, measured, readable = suite_plots(evidence, looks), suite_tables(evidence), Readable()
    search, search_figures = search_section(evidence)

    def measurements(heading: str) -> Content:
        """Figures and tables of the suites under ``heading``."""
        names = [name for name, title in TITLES.items() if title == heading]
        shown = figures([plot for name in names for plot in suites.get(name, ())])
        for rows in (measured.get(name, []) for name in names):
            whole = len(rows) <= MOST_ROWS
            shown += table(rows) if whole else fold(f"The numbers of all {len(rows)} runs", table(rows))
        return shown

    sections = {
        "What was trained": _trained(evidence),
        "Search": search,
        "Results": []
        if not classifiers
        else [
            *table(tables.accuracy(classifiers, suites=evidence.suites)),
            Block("published", " and of its released code"),
            *_notes(tables.notes(classifiers)),
            *fold("Each run", table(tables.single_runs(classifiers))),
        ],
        **{
            kind.name.capitalize(): [
                *table(transfer(evidence.lines, kind, TABLE)),
                Block("published", ""),
                *_notes(transfer_notes(evidence.lines, kind)),
                *fold("Each run", table(single_transfers(evidence.lines, kind))),
            ]
            for kind in KINDS
            if of_kind(evidence.lines, kind)
        },
        "What the networks find": example_section(evidence),
        "Most confident mistakes": mistake_section(evidence, readable),
        "Likely wrong labels": suspect_section(evidence, readable),
        "Confusion": measurements("Confusion"),
        "Worst classes": _worst(evidence),
        "Learning curves": (figures(curves) or [Block("text", "The runs have no metrics.csv.")]) + _each(heads),
        "Loss terms": _each(terms),
        "Cost and accuracy": figures(cost) + table(tables.cost(classifiers)),
        **{heading: measurements(heading) for heading in dict.fromkeys(TITLES.values()) if heading != "Confusion"},
        "What the network sees": training_image_section(evidence, readable),
        "Differences in configuration": _differences(evidence.lines),
        "Configurations": [
            block for line in evidence.lines for block in fold(line.label, [Block("code", to_yaml(line.experiment))])
        ],
    }
    if any(FGSM in column for row in measured.get("fgsm", ()) for column in row):
        sections["Robustness"] += [Block("note", FGSM_NOTE)]
    plots = [*search_figures, *curves, *heads, *terms, *cost, *(plot for some in suites.values() for plot in some)]
    return {heading: content for heading, content in sections.items() if content}, plots


def _each(plots: Sequence[Plot]) -> Content:
    """Figures that fold one by one."""
    return [block for plot in plots for block in fold(plot.caption, figures([plot]))]


def _notes(texts: Sequence[str]) -> Content:
    return [Block("note", text) for text in texts]


def _trained(evidence: Evidence) -> Content:
    rows: Table = []
    for line in evidence.lines:
        e, s = line.experiment, line.results[0].summary
        few = "all" if e.data.per_class is None else f"{e.data.per_class} a class"
        rows.append({
            "setting": line.label, "method": e.method.name, "backbone": e.backbone, "weights": e.weights or "none",
            "data": e.data.source, "images": few,
            "image size": Number(s["image_size"]) if s.get("image_size") else None,
            "policy": e.data.augment, "epochs": Number(e.run.epochs), "batch": Number(e.run.batch),
            "optimizer": e.optim.name, "rate": Number(e.optim.lr, 4), "runs": Number(len(line.results)),
            "device": str(s["device"]), "precision": str(s["precision"]), "mixskd": str(s.get("mixskd", "-")),
            "torch": str(s.get("torch", "-")),
        })  # fmt: skip
    remarks = {str(note): run.label for run in reversed(evidence.runs) for note in run.result.summary.get("notes", ())}
    hours = sum(run.result.summary["seconds"] for run in evidence.runs) / 3600
    first = (
        f"{len(evidence.runs)} runs of {len(evidence.lines)} settings, trained in {hours:.1f} hours together. "
        "Runs of one setting differ in nothing but the seed."
    )
    folded = fold("Notes of the runs", [Block("list", list(remarks.items()))]) if remarks else []
    return [Block("text", first), *table(rows), *folded]


def _worst(evidence: Evidence) -> Content:
    parts = Content()
    for run, result in evidence.with_suite("accuracy"):
        present = [c for c in result["classes"] if c["images"]]
        rows: Table = [
            {"class": str(c["name"]), "recall (%)": Number(c["recall"], 1), "precision (%)": Number(c["precision"], 1),
             "F1 (%)": Number(c["f1"], 1), "images": Number(c["images"])}
            for c in sorted(present, key=lambda c: c["f1"])[:WORST]
        ]  # fmt: skip
        parts += fold(f"{run.label}: the {len(rows)} lowest F1 on {result['split']}", table(rows), open=not parts)
    return parts


def _differences(lines: Sequence[Repeated]) -> Content:
    """The options of each setting's method, and its settings that are not those of most."""
    rows: Table = []
    for line, other in zip(lines, unusual_settings(lines), strict=True):
        options = {k: v for k, v in line.results[0].setting().items() if k.startswith("method.")}
        own = ", ".join(f"{key} {value}" for key, value in options.items())
        rows.append({"setting": line.label, "method": own or "-", "differs from most settings in": other or "-"})
    return table(rows)
