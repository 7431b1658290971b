"""Run a grid from its description to its tables: ``compare``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixskd.artifacts.results import Result, read_results
from mixskd.artifacts.stored_files import read_grid
from mixskd.comparison.display import RunsDisplay
from mixskd.comparison.grid import Grid, check_columns, combined, grid_from, options_by_label
from mixskd.comparison.launchers import LAUNCHERS, check_launcher
from mixskd.comparison.plan import Run, plan, unfinished
from mixskd.comparison.scheduler import carry_out_all
from mixskd.comparison.transfer_runs import examine_data
from mixskd.config import merge
from mixskd.config.task_kinds import kind_of
from mixskd.config.trusted_backbones import remember_typed
from mixskd.data.loading import load_data, may_have_several
from mixskd.errors import UserError
from mixskd.errors.text import safe
from mixskd.methods import method_class
from mixskd.reporting.grouping import put_together
from mixskd.reporting.tables.comparison import write_tables
from mixskd.runtime.files import slug, write_text


@dataclass(frozen=True)
class Comparison:
    """Result of a grid.

    Args:
        folder: the folder of runs and tables.
        rows: those of table.csv, one for each arm, backbone and policy, then those of detection.csv and
            segmentation.csv, where there are such runs.
        failures: by the run's name, why it failed, in one line.
    """

    folder: Path
    rows: list[dict[str, Any]]
    failures: dict[str, str]

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the table, and the runs that failed."""
        path = self.folder / "table.md"
        table = path.read_text(encoding="utf-8") if path.exists() else ""
        return "\n\n".join([table, *(safe(f"{name} failed: {why}", "markdown") for name, why in self.failures.items())])


def compare(
    recipe: str | None = None,
    *,
    grid: str | None = None,
    methods: str | Sequence[str] | Mapping[str, Any] | None = None,
    backbones: str | Sequence[str] | None = None,
    augments: str | Sequence[str] | None = None,
    seeds: str | Sequence[int | str] | None = None,
    folds: int | None = None,
    out: str | Path | None = None,
    equal_updates: str | None = None,
    equal_cost: str | None = None,
    images_per_update: int | None = None,
    suites: str | Sequence[str] | None = None,
    transfer: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    devices: str = "auto",
    launcher: str = "local",
    launcher_options: Mapping[str, Any] | None = None,
    progress: bool = True,
    data: str | Path | Mapping[str, Any] | None = None,
    backbone: str | None = None,
    method: str | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    **settings: Any,
) -> Comparison:
    """Train the missing runs of a grid of methods x backbones x policies x seeds, and write its tables to ``out``.

    A method is a name, ``mixskd[mix=cutmix]``, or ``LABEL=mixskd[mix=cutmix,run.batch_size=32]``; a mapping from labels
    to options is also accepted. ``grid`` names an ablation (:mod:`mixskd.config.grids`) whose methods are used.
    ``settings`` are those of all runs, by group (``run={"epochs": 3}``); they override those of ``recipe``, or without
    a recipe those of the default comparison. Each of ``suites`` (:data:`mixskd.evaluation.suites.SUITES`) adds a
    column. With ``transfer``, each backbone is used in a detector or a segmentation network
    (:class:`mixskd.comparison.transfer_runs.Transfer`). With ``folds``, each seed has one run for each fold of a
    cross-validation, whose division is the same for all methods. Up to ``jobs`` runs are active at a time, on
    ``devices`` (``auto``, ``cpu``, or GPUs such as ``0,1``); ``launcher`` is ``local``, ``slurm`` or ``ray``.
    A run that fails does not stop the others. Raises UserError for a mistake in the grid or its data before anything is
    trained.
    """
    axes = {
        "recipe": recipe, "methods": methods, "backbones": backbones, "augments": augments, "seeds": seeds,
        "equal_updates": equal_updates, "equal_cost": equal_cost, "images_per_update": images_per_update,
        "suites": suites, "folds": folds,
    }  # fmt: skip
    given = {key: value for key, value in axes.items() if value is not None}
    data = str(data) if isinstance(data, Path) else data
    short = {"data": data, "backbone": backbone, "method": method, "weights": weights}
    own = merge(settings | {key: value for key, value in short.items() if value is not None})
    remember_typed(backbones, backbone)
    if transfer is not None:
        own["transfer"] = transfer
    whole = grid_from(combined(own, grid, given))
    return run_grid(
        whole, folder_of(whole, out, grid), jobs=jobs, devices=devices, launcher=launcher,
        launcher_options=launcher_options or {}, progress=progress,
    )  # fmt: skip


def folder_of(grid: Grid, out: str | Path | None, name: str | None = None) -> Path:
    """``out``, or ``runs/compare-DATA[-NAME]``, with the ``name`` of a grid. Raises UserError for a file."""
    source = grid.settings.get("data", {}).get("source", "digits")
    folder = Path(out or f"runs/compare-{Path(source).stem}" + (f"-{name}" if name else ""))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; give a folder")
    return folder


def run_grid(
    grid: Grid,
    folder: Path,
    *,
    jobs: int | None = None,
    devices: str = "auto",
    launcher: str = "local",
    launcher_options: Mapping[str, Any],
    progress: bool = True,
) -> Comparison:
    """Train the missing runs of ``grid`` in ``folder``, and write its tables there."""
    check_launcher(launcher, jobs)
    runs = plan(grid, folder)
    failures = {}
    if missing := unfinished(runs):
        examine_data(run.experiment for run in missing)
        check_labels(missing, grid.suites)
        carrier = LAUNCHERS[launcher](folder, jobs, devices, launcher_options)
        try:
            write_text(folder / "grid.yaml", grid_yaml(grid))
            failures = carry_out_all(runs, carrier, RunsDisplay(runs, quiet=not progress))
        finally:
            carrier.close()
    rows = tabulate(folder, grid.suites) if any(run.finished for run in runs) else []
    return Comparison(folder, rows, failures)


def check_labels(runs: Sequence[Run], suites: Sequence[str]) -> None:
    """Raises UserError for a method of ``runs``, or for ``suites``, if their images have several labels. A file of data
    that may hold several is read once.
    """
    several: dict[Any, bool] = {}
    for run in runs:
        data, method = run.experiment.data, run.experiment.method.name
        if kind_of(method) or not may_have_several(data.source):
            continue
        key = data.source, data.channels, data.range
        if key not in several:
            several[key] = load_data(data, verify=False).several
        if several[key]:
            method_class(method).check_several(run.label)
            if suites:
                raise UserError(f"the suites are for one label an image, but {data.source} has several; leave --suites "
                                "out, and use mixskd evaluate RUN --suite accuracy")  # fmt: skip


def tabulate(folder: Path, suites: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Write the tables of the finished runs in ``folder``, of a grid or not, and return the rows of all tables.

    Each of ``suites`` (by default those of the grid) is a column; it is run where the run has no result of it yet.
    Raises UserError if there is no finished run, or for a suite that cannot be a column.
    """
    grid = read_grid(folder / "grid.yaml")
    labels = {slug(label): label for label in grid.get("methods", ())}
    suites = suites or grid.get("suites", ())
    check_columns(suites)
    results = read_results(folder)
    for result in (one for one in results if one.kind is None):  # the suites are of classifiers
        if missing := [name for name in suites if not is_measured(result, name)]:
            from mixskd.evaluation.runner import run_suites

            run_suites([result.folder], missing)
    return write_tables(put_together(results, labels), folder, grid.get("paper_table"), suites, grid.get("equal_cost"))


def is_measured(result: Result, suite: str) -> bool:
    """Whether the run has a result of ``suite`` that is not older than its weights."""
    written, model = result.folder / "evaluation" / f"{suite}.json", result.folder / "model.safetensors"
    return written.exists() and (not model.exists() or written.stat().st_mtime >= model.stat().st_mtime)


def grid_yaml(grid: Grid) -> str:
    """``grid`` as a file for ``--config``."""
    values = {
        "methods": options_by_label(grid.arms), "backbones": list(grid.backbones), "augments": list(grid.augments),
        "seeds": list(grid.seeds), "equal_updates": grid.equal_updates, "equal_cost": grid.equal_cost,
        "images_per_update": grid.images_per_update, "paper_table": grid.paper_table,
        "suites": list(grid.suites) or None, "folds": grid.folds,
        "transfer": None if grid.transfer is None else grid.transfer.to_dict(),
    }  # fmt: skip
    given = {key: value for key, value in values.items() if value is not None}
    return yaml.safe_dump({**given, **grid.settings}, sort_keys=False)
