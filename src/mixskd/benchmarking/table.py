"""The report of a benchmark as tables on a terminal."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixskd.errors.terminal import console as on_stdout
from mixskd.errors.text import visible


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the ``report`` of :func:`mixskd.benchmarking.benchmark.benchmark`."""
    console = console or on_stdout()
    experiment = report["experiment"]
    method, backbone = experiment["method"]["name"], experiment["backbone"]
    machine, originals = report["machine"], experiment["run"]["batch_size"]
    lines = [
        f"{method} on {backbone}, {originals} originals a step, {report['flops_per_step'] / 1e9:.1f} GFLOP; "
        f"{machine['device']}, {machine['threads']} threads",
        f"precision of default: {report['precision']}, {report['precision_reason']}",
        *(f"note: {note}" for note in report["notes"]),
    ]
    precisions = list(report["ceiling_flops"])
    variants = Table("variant", "images/s", "ms/step", "speed", "MiB", *(f"of {p}" for p in precisions), box=None)
    for name, row in report["variants"].items():
        variants.add_row(
            escape(visible(name)),
            f"{row['images_per_second']:.1f}",
            f"{1000 * row['step_seconds']:.1f}",
            f"{row['speedup']:.2f}x" if "speedup" in row else "",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
            *(f"{100 * row['share_of_ceiling'][p]:.0f} %" for p in precisions),
        )
    ceilings = ", ".join(f"{p} {value / 1e9:.0f} GFLOP/s" for p, value in report["ceiling_flops"].items())
    seconds = report["parts_of_the_eager_step"]
    parts = Table("part of the eager step", "ms", "share", box=None)
    for name, value in seconds.items():
        parts.add_row(name, f"{1000 * value:.2f}", f"{100 * value / seconds['step']:.1f} %")
    loader, start = report["loader"], report.get("startup_seconds")
    times = f", {loader['times_the_default_step']:.1f}x the default step" if "times_the_default_step" in loader else ""
    for part in (
        *lines,
        variants,
        f"matrix product: {ceilings}",
        parts,
        f"objective: {100 * report['objective_share']:.1f} % of the step",
        f"loader alone: {loader['images_per_second']:.0f} images/s{times}",
    ):
        console.print(visible(part) if isinstance(part, str) else part, markup=False, highlight=False)
    if start is not None:
        help_, first = start["help"], start["first_step"]
        console.print(f"start: --help {help_:.2f} s, first step on the digits saved after {first:.2f} s")
