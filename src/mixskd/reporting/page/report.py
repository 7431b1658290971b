"""The report: one file that shows finished runs to a person. It needs no other file and no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mixskd.config import to_yaml
from mixskd.config.task_kinds import KINDS, Kind
from mixskd.drawing.plots import Plot
from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence, read_evidence
from mixskd.reporting.page import elements as pieces
from mixskd.reporting.page.mistakes import mistake_section, suspect_section
from mixskd.reporting.page.search import search_section
from mixskd.reporting.page.style import SCRIPT, STYLE
from mixskd.reporting.page.training_images import seen_section
from mixskd.reporting.page.transfer_examples import example_section
from mixskd.reporting.plots.curves import cost_plot, head_plots, score_plots, term_plots
from mixskd.reporting.plots.suites import suite_plots
from mixskd.reporting.published.classification import FGSM, FGSM_NOTE
from mixskd.reporting.published.transfer import TABLE
from mixskd.reporting.readable_data import Readable
from mixskd.reporting.repeated import Repeated
from mixskd.reporting.tables import comparison as tables
from mixskd.reporting.tables.cells import Number, Table
from mixskd.reporting.tables.suites import suite_tables
from mixskd.reporting.tables.transfer import single_transfers, transfer, transfer_notes
from mixskd.runtime.files import check_writable, write_text

WORST = 10
MOST_ROWS = 12  # of a suite's table that is open from the start
PAPER = '<p>Published values are those of <a href="https://arxiv.org/abs/2208.05768">MixSKD</a> (ECCV 2022)'
TITLES = {
    "calibration": "Reliability", "fgsm": "Robustness", "pgd": "Robustness", "corruption": "Common corruptions",
    "linearity": "Linearity", "confidence": "Confidence on mistakes", "features": "Frozen features",
    "ood": "Images of another data set", "accuracy": "Confusion",
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
    evidence = read_evidence(runs)
    check_writable(out)
    sections, plots = compose(evidence)
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; name a folder for the figures")
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            plot.write(folder)
    number = len(evidence.runs)
    title = f"mixskd: {number} {'run' if number == 1 else 'runs'}"
    write_text(out, pieces.page(title, sections, STYLE, SCRIPT))
    return out


def compose(evidence: Evidence) -> tuple[dict[str, str], list[Plot]]:
    """The sections as HTML by heading, in order, and all figures in them."""
    classifiers = evidence.of_kind(None)
    curves, heads, terms = score_plots(evidence), head_plots(evidence), term_plots(evidence)
    cost = [cost_plot(classifiers)] if classifiers else []
    suites, measured, readable = suite_plots(evidence), suite_tables(evidence), Readable()
    search, search_figures = search_section(evidence)
    sections = {
        "What was trained": _trained(evidence),
        "Search": search,
        "Results": _results(evidence, classifiers) if classifiers else "",
        **{kind.name.capitalize(): _transfer(evidence, kind) for kind in KINDS if evidence.of_kind(kind)},
        "What the networks find": example_section(evidence),
        "Learning curves": (pieces.figures(curves) or pieces.paragraph("The runs have no metrics.csv.")) + _each(heads),
        "Loss terms": _each(terms),
        "Cost and accuracy": "".join(map(pieces.figure, cost)) + pieces.table(tables.cost(classifiers)),
    }
    for heading in dict.fromkeys(TITLES.values()):
        names = [name for name, title in TITLES.items() if title == heading]
        drawn = pieces.figures([plot for name in names for plot in suites.get(name, ())])
        sections[heading] = drawn + "".join(_long(measured.get(name, [])) for name in names)
    if any(FGSM in column for row in measured.get("fgsm", ()) for column in row):
        sections["Robustness"] += pieces.note(FGSM_NOTE)
    sections["Worst classes"] = _worst(evidence)
    sections["Most confident mistakes"] = mistake_section(evidence, readable)
    sections["Likely wrong labels"] = suspect_section(evidence, readable)
    sections["What the network sees"] = seen_section(evidence, readable)
    sections["Differences in configuration"] = _differences(evidence.lines)
    sections["Configurations"] = "".join(
        pieces.folded(line.label, f"<pre>{_lines(to_yaml(line.experiment))}</pre>") for line in evidence.lines
    )
    plots = [*search_figures, *curves, *heads, *terms, *cost, *(plot for some in suites.values() for plot in some)]
    return {heading: inside for heading, inside in sections.items() if inside}, plots


def _each(plots: Sequence[Plot]) -> str:
    """Figures that fold one by one."""
    return "".join(pieces.folded(plot.caption, pieces.figure(plot)) for plot in plots)


def _long(rows: Table) -> str:
    """A table; one of many rows folds."""
    inside = pieces.table(rows)
    return inside if len(rows) <= MOST_ROWS else pieces.folded(f"The numbers of all {len(rows)} runs", inside)


def _trained(evidence: Evidence) -> str:
    rows: Table = []
    for line in evidence.lines:
        e, s = line.experiment, line.results[0].summary
        few = "all" if e.data.per_class is None else f"{e.data.per_class} a class"
        rows.append({
            "setting": line.label, "method": e.method.name, "backbone": e.backbone, "weights": e.weights or "none",
            "data": e.data.source, "images": few,
            "image size": Number(s["image_size"]) if s.get("image_size") else None,
            "policy": e.data.augment, "epochs": Number(e.run.epochs), "batch": Number(e.run.batch_size),
            "optimizer": e.optim.name, "rate": Number(e.optim.lr, 4), "runs": Number(len(line.results)),
            "device": str(s["device"]), "precision": str(s["precision"]), "mixskd": str(s.get("mixskd", "-")),
            "torch": str(s.get("torch", "-")),
        })  # fmt: skip
    said = {str(note): run.label for run in reversed(evidence.runs) for note in run.result.summary.get("notes", ())}
    remarks = "".join(f"<li>{pieces.text(note)} <i>({pieces.text(name)})</i></li>" for note, name in said.items())
    hours = sum(run.result.summary["seconds"] for run in evidence.runs) / 3600
    first = pieces.paragraph(
        f"{len(evidence.runs)} runs of {len(evidence.lines)} settings, trained in {hours:.1f} hours together. "
        "A setting is all that runs share but the seed."
    )
    return first + pieces.table(rows) + (pieces.folded("Notes of the runs", f"<ul>{remarks}</ul>") if said else "")


def _results(evidence: Evidence, lines: Sequence[Repeated]) -> str:
    notes = "".join(map(pieces.note, tables.notes(lines)))
    single = pieces.folded("Each run", pieces.table(tables.single_runs(lines)))
    accuracy = pieces.table(tables.accuracy(lines, suites=evidence.suites))
    return f"{accuracy}{PAPER} and of its released code.</p>{notes}{single}"


def _transfer(evidence: Evidence, kind: Kind) -> str:
    notes = "".join(map(pieces.note, transfer_notes(evidence.lines)))
    single = pieces.folded("Each run", pieces.table(single_transfers(evidence.lines, kind)))
    return f"{pieces.table(transfer(evidence.lines, kind, TABLE))}{PAPER}.</p>{notes}{single}"


def _worst(evidence: Evidence) -> str:
    parts = []
    for run, result in evidence.with_suite("accuracy"):
        present = [c for c in result["classes"] if c["images"]]
        rows: Table = [
            {"class": str(c["name"]), "recall (%)": Number(c["recall"], 1), "precision (%)": Number(c["precision"], 1),
             "F1 (%)": Number(c["f1"], 1), "images": Number(c["images"])}
            for c in sorted(present, key=lambda c: c["f1"])[:WORST]
        ]  # fmt: skip
        parts.append(pieces.folded(f"{run.label}: the {len(rows)} lowest F1 on {result['split']}", pieces.table(rows)))
    return "".join(parts)


def _differences(lines: Sequence[Repeated]) -> str:
    """What each setting has that is not the value of most."""
    settings = [line.results[0].setting() for line in lines]
    keys = sorted({key for setting in settings for key in setting if not key.startswith("method.")})
    usual = {key: Counter(str(setting.get(key)) for setting in settings).most_common(1)[0][0] for key in keys}
    rows: Table = []
    for line, setting in zip(lines, settings, strict=True):
        own = {key: value for key, value in setting.items() if key.startswith("method.")}
        other = {key: setting.get(key) for key in keys if str(setting.get(key)) != usual[key]}
        rows.append({"setting": line.label, "method": _pairs(own), "differs from most settings in": _pairs(other)})
    return pieces.table(rows)


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "-"


def _lines(block: str) -> str:
    return "\n".join(map(pieces.text, block.splitlines()))
