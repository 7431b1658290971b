"""The report on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from mixskd.errors.text import visible


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print what ``benchmark`` found."""
    console = console or Console()
    experiment = report["experiment"]
    method, backbone = experiment["method"]["name"], experiment["backbone"]
    machine, originals = report["machine"], experiment["run"]["batch_size"]
    console.print(
        f"{method} on {visible(backbone)}, {originals} originals a step, {report['flops_per_step'] / 1e9:.1f} GFLOP; "
        f"{machine['device']}, {machine['threads']} threads",
        highlight=False,
    )
    console.print(
        f"precision of default: {report['precision']}, {report['precision_reason']}", highlight=False, markup=False
    )
    for note in report["notes"]:
        console.print(f"note: {visible(note)}", highlight=False, markup=False)
    precisions = list(report["ceiling_flops"])
    table = Table("variant", "images/s", "ms/step", "speed", "MiB", *(f"of {p}" for p in precisions), box=None)
    for name, row in report["variants"].items():
        table.add_row(
            name,
            f"{row['images_per_second']:.1f}",
            f"{1000 * row['step_seconds']:.1f}",
            f"{row['speedup']:.2f}x" if "speedup" in row else "",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
            *(f"{100 * row['share_of_ceiling'][p]:.0f} %" for p in precisions),
        )
    console.print(table)
    ceilings = ", ".join(f"{p} {value / 1e9:.0f} GFLOP/s" for p, value in report["ceiling_flops"].items())
    console.print(f"matrix product: {ceilings}", highlight=False)
    parts = report["parts_of_the_eager_step"]
    table = Table("part of the eager step", "ms", "share", box=None)
    for name, seconds in parts.items():
        table.add_row(name, f"{1000 * seconds:.2f}", f"{100 * seconds / parts['step']:.1f} %")
    console.print(table)
    console.print(f"objective: {100 * report['objective_share']:.1f} % of the step", highlight=False)
    loader = report["loader"]
    times = f", {loader['times_the_default_step']:.1f}x the default step" if "times_the_default_step" in loader else ""
    console.print(f"loader alone: {loader['images_per_second']:.0f} images/s{times}", highlight=False)
    start = report["startup_seconds"]
    console.print(
        f"start: --help {start['help']:.2f} s, first step on the digits saved after {start['first_step']:.2f} s",
        highlight=False,
    )
