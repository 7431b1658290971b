"""The tables of detectors and segmentation networks, in the shape of the paper's Table 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixskd.artifacts.results import Result, deployed_scores
from mixskd.config import Experiment
from mixskd.config.task_kinds import Kind
from mixskd.reporting.published.transfer import TABLE, beside, published_transfer, value_beside
from mixskd.reporting.repeated import Repeated, mean_and_std
from mixskd.reporting.tables.cells import Cell, Number, Spread, Table

NOTHING = "nothing"


@dataclass(frozen=True)
class Origin:
    """The origin of a backbone: the ``label`` of its setting, and its ``runs`` where they are known."""

    label: str
    runs: tuple[Result, ...] = ()

    @property
    def experiment(self) -> Experiment | None:
        """The experiment of its runs, if known."""
        return self.runs[0].experiment if self.runs else None


def of_kind(lines: Sequence[Repeated], kind: Kind | None) -> list[Repeated]:
    """The lines of this kind of task; None for classifiers."""
    return [line for line in lines if line.kind is kind]


Place = tuple[Path, str]
Trained = Mapping[Place, tuple[str, Result]]


def trained_in(lines: Sequence[Repeated]) -> Trained:
    """The classifiers among ``lines`` with the label of their line, by the grid's folder and the run's name."""
    return {
        (result.folder.resolve().parent, result.name): (line.label, result)
        for line in of_kind(lines, None)
        for result in line.results
    }


def origin_of(line: Repeated, trained: Trained) -> Origin:
    """The origin of the backbones of ``line``: a line of ``trained`` in the same grid, or weights by their path."""
    known = [
        trained[place]
        for result in line.results
        if result.experiment.weights is not None
        and (place := (result.folder.resolve().parent, Path(result.experiment.weights).name)) in trained
    ]
    if known:
        return Origin(known[0][0], tuple({result.name: result for _, result in known}.values()))
    weights = line.results[0].setting().get("weights")
    return Origin(NOTHING if weights is None else str(weights))


def transfer(lines: Sequence[Repeated], kind: Kind, paper_table: str | None = None) -> Table:
    """A row for each setting of ``kind`` among ``lines``: what it started from, its scores over the seeds.

    ``top-1 (%)`` is that of the backbones as classifiers, where their runs are among ``lines`` too.
    """
    chosen, trained = in_order(lines, kind), trained_in(lines)
    having = {name for line in chosen for r in line.results for name in deployed_scores(r.summary)[1]}
    rows: Table = []
    for line in chosen:
        origin = origin_of(line, trained)
        top1 = [result.top1 for result in origin.runs]
        rows.append({
            **_place(line, origin),
            "seeds": ", ".join(str(seed) for seed in sorted({r.experiment.run.seed for r in line.results})),
            "runs": Number(len(line.results)),
            "split": line.results[0].split,
            "top-1 (%)": Spread(*mean_and_std(top1)) if top1 else None,
            **{f"{text} (%)": _spread(line, name) for name, text in kind.scores.items() if name in having},
            "published (%)": _number(published_transfer(line.experiment, origin.experiment)),
            **_beside(kind, origin, chosen[0], paper_table),
            "parameters": Number(line.mean("parameters")),
            "updates": Number(line.mean("updates")),
            "time (s)": Number(line.mean("seconds")),
        })  # fmt: skip
    return rows


def single_transfers(lines: Sequence[Repeated], kind: Kind) -> Table:
    """One row a run of ``kind``."""
    chosen, trained = in_order(lines, kind), trained_in(lines)
    having = {name for line in chosen for r in line.results for name in deployed_scores(r.summary)[1]}
    return [
        {
            **_place(line, origin_of(line, trained)),
            "weights": result.experiment.weights or "none",
            "seed": Number(result.experiment.run.seed),
            "split": result.split,
            **{
                f"{text} (%)": _number(deployed_scores(result.summary)[1].get(name))
                for name, text in kind.scores.items()
                if name in having
            },
            "deployed epoch": Number(result.summary["deployed"]["epoch"]),
            "epochs": Number(result.experiment.run.epochs),
            "batch": Number(result.experiment.run.batch),
            "updates": Number(result.summary["updates"]),
            "time (s)": Number(result.summary["seconds"], 1),
            "device": result.summary["device"],
            "precision": result.summary["precision"],
            "threads": Number(result.summary["threads"]),
        }
        for line in chosen
        for result in line.results
    ]


def transfer_notes(lines: Sequence[Repeated]) -> list[str]:
    """Notes under these tables."""
    found = [
        "Scores are those of the deployed weights on the named split, the mean over the runs; ± is the sample standard "
        "deviation (ddof 1). Top-1 is that of the backbone as a classifier, on its own data.",
    ]
    trained = trained_in(lines)
    pairs = [(line.experiment, origin_of(line, trained).experiment) for line in lines if line.kind is not None]
    if any(published_transfer(*pair) is not None for pair in pairs):
        found.append(f"Published: {TABLE}, from backbones that were trained on ImageNet.")
    return found


def in_order(lines: Sequence[Repeated], kind: Kind) -> list[Repeated]:
    """The lines of ``kind``: from no weights first, then in the order of the backbones' own lines."""
    places = {line.label: place for place, line in enumerate(of_kind(lines, None))}
    trained = trained_in(lines)

    def place(line: Repeated) -> tuple[str, str, int]:
        label = origin_of(line, trained).label
        first = -1 if label == NOTHING else places.get(label, len(places))
        return line.experiment.method.name, line.experiment.data.source, first

    return sorted(of_kind(lines, kind), key=place)


def _place(line: Repeated, origin: Origin) -> dict[str, Cell]:
    e = line.experiment
    return {"pre-trained by": origin.label, "network": e.method.name, "backbone": e.backbone,
            "data": Path(e.data.source).name}  # fmt: skip


def _beside(kind: Kind, origin: Origin, first: Repeated, paper_table: str | None) -> dict[str, Cell]:
    """The column of the paper's own data, if its table is asked for."""
    if paper_table != TABLE:
        return {}
    data, backbone = beside(kind, first.experiment)
    title = f"{TABLE}: {kind.scores[kind.monitor]} on {data}, {backbone} (%)"
    return {title: _number(value_beside(kind, data, origin.experiment))}


def _spread(line: Repeated, name: str) -> Spread | None:
    scores = [deployed_scores(result.summary)[1].get(name) for result in line.results]
    known = [score for score in scores if score is not None]
    return Spread(*mean_and_std(known)) if known else None


def _number(value: float | None) -> Number | None:
    return None if value is None else Number(value, 2)
