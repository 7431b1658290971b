"""The tables of tasks beside one label an image; those of detectors are in the shape of the paper's Table 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixskd.artifacts.results import Result, deployed_scores
from mixskd.config import Experiment
from mixskd.config.task_kinds import Kind
from mixskd.reporting.grouping import Repeated, mean_and_std, of_kind
from mixskd.reporting.published.transfer import TABLE, beside, published_transfer, value_beside
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


def with_origins(lines: Sequence[Repeated], kind: Kind) -> list[tuple[Repeated, Origin]]:
    """The lines of ``kind``, each with the origin of its backbones.

    Those without weights come first, then the others in the order of the classifiers from which they start.
    """
    classifiers = of_kind(lines, None)
    trained = {(r.folder.resolve().parent, r.name): (line.label, r) for line in classifiers for r in line.results}
    places = {NOTHING: -1, **{line.label: place for place, line in enumerate(classifiers)}}

    def origin_of(line: Repeated) -> Origin:
        starts = [(r.folder.resolve().parent, Path(r.experiment.weights or "").name) for r in line.results]
        if known := [trained[start] for start in starts if start in trained]:
            return Origin(known[0][0], tuple({result.name: result for _, result in known}.values()))
        return Origin(str(line.results[0].setting().get("weights") or NOTHING))

    def place(pair: tuple[Repeated, Origin]) -> tuple[str, str, int]:
        e = pair[0].experiment
        return e.method.name, e.data.source, places.get(pair[1].label, len(places))

    return sorted(((line, origin_of(line)) for line in of_kind(lines, kind)), key=place)


def transfer(lines: Sequence[Repeated], kind: Kind, paper_table: str | None = None) -> Table:
    """A row for each setting of ``kind`` among ``lines``: the origin of its backbones, and its scores over the seeds.

    ``top-1 (%)`` is that of the backbones as classifiers, where their runs are among ``lines`` too.
    """
    chosen = with_origins(lines, kind)
    rows: Table = []
    for line, origin in chosen:
        top1 = [result.top1 for result in origin.runs]
        rows.append({
            **_place(line, origin),
            "seeds": line.seeds,
            "runs": Number(len(line.results)),
            "split": line.results[0].split,
            **({"top-1 (%)": Spread(*mean_and_std(top1)) if top1 else None} if kind.networks else {}),
            **{f"{text} (%)": _spread(line, name) for name, text in _scores(chosen, kind).items()},
            **_published(kind, line, origin),
            **_beside(kind, origin, chosen[0][0], paper_table),
            "parameters": Number(line.mean("parameters")),
            "updates": Number(line.mean("updates")),
            "time (s)": Number(line.mean("seconds")),
        })  # fmt: skip
    return rows


def single_transfers(lines: Sequence[Repeated], kind: Kind) -> Table:
    """One row a run of ``kind``."""
    chosen = with_origins(lines, kind)
    scores = _scores(chosen, kind).items()
    return [
        {
            **_place(line, origin),
            "weights": result.experiment.weights or "none",
            "seed": Number(result.experiment.run.seed),
            "split": result.split,
            **{f"{text} (%)": _number(deployed_scores(result.summary)[1].get(name)) for name, text in scores},
            "deployed epoch": Number(result.summary["deployed"]["epoch"]),
            "epochs": Number(result.experiment.run.epochs),
            "batch": Number(result.experiment.run.batch),
            "updates": Number(result.summary["updates"]),
            **machine_columns(result),
        }
        for line, origin in chosen
        for result in line.results
    ]


def machine_columns(result: Result) -> dict[str, Cell]:
    """Time, device, precision and threads of a run."""
    s = result.summary
    return {"time (s)": Number(s["seconds"], 1), "device": s["device"], "precision": s["precision"],
            "threads": Number(s["threads"])}  # fmt: skip


def transfer_notes(lines: Sequence[Repeated], kind: Kind) -> list[str]:
    """Notes under these tables."""
    found = [
        "Scores are those of the deployed weights on the named split, the mean over the runs; ± is the sample standard "
        "deviation (ddof 1).",
    ]
    if kind.networks:
        found[0] += " Top-1 is that of the backbone as a classifier, on its own data."
    pairs = [(line.experiment, origin.experiment) for line, origin in with_origins(lines, kind)]
    if any(published_transfer(*pair) is not None for pair in pairs):
        found.append(f"Published: {TABLE}, from backbones that were trained on ImageNet.")
    return found


def _scores(chosen: Sequence[tuple[Repeated, Origin]], kind: Kind) -> dict[str, str]:
    """The scores of ``kind`` that any run has, with their titles."""
    having = {name for line, _ in chosen for r in line.results for name in deployed_scores(r.summary)[1]}
    return {name: text for name, text in kind.scores.items() if name in having}


def _place(line: Repeated, origin: Origin) -> dict[str, Cell]:
    e = line.experiment
    if line.kind is not None and not line.kind.networks:  # a classifier, trained by a method
        return {"method": line.label, "backbone": e.backbone, "data": Path(e.data.source).name}
    return {"pre-trained by": origin.label, "network": e.method.name, "backbone": e.backbone,
            "data": Path(e.data.source).name}  # fmt: skip


def _published(kind: Kind, line: Repeated, origin: Origin) -> dict[str, Cell]:
    """The published value of a network of the paper."""
    if not kind.networks:
        return {}
    return {"published (%)": _number(published_transfer(line.experiment, origin.experiment))}


def _beside(kind: Kind, origin: Origin, first: Repeated, paper_table: str | None) -> dict[str, Cell]:
    """The column of the paper's own data, if its table is named."""
    if paper_table != TABLE or not kind.networks:
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
