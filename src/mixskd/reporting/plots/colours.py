"""The look of each line: one colour for a method in every report, and dashes and markers for its settings and runs."""

import zlib
from typing import Any

from matplotlib import colormaps

from mixskd.config.registry import METHODS
from mixskd.drawing.plots import colour
from mixskd.reporting.evidence import Evidence, Run
from mixskd.reporting.grouping import Repeated

# The most used methods have the ten colours that differ most. New names are added at the end: colours must not change.
ORDER = (
    "baseline", "mixup", "cutmix", "mixskd", "cskd", "frskd", "label_smoothing", "manifold_mixup", "regmixup",
    "deep_supervision", "cskd_mixup", "frskd_mixup", "tfkd_reg", "tfkd_self", "pskd", "byot", "dks", "ddgsd", "bake",
    "sad", "dlb", "focal", "confidence_penalty", "virtual_softmax", "augmix_jsd", "uskd", "zipf_ls",
    "kd", "ict", "ols", "mixup_cutmix",
)  # fmt: skip
MAPS = (("tab10", 1), ("tab20", 2), ("Dark2", 1), ("Set1", 1))  # of the second, the lighter one of each pair
COLOURS = [c for name, step in MAPS for c in colormaps[name].colors[step - 1 :: step]]  # type: ignore[attr-defined]
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
MARKERS = "osD^v<>PX*"


def method_colour(name: str) -> tuple[float, ...]:
    """The colour of the method ``name``; that of a plugin's method follows from its name."""
    place = ORDER.index(name) if name in ORDER else zlib.crc32(name.encode())
    return tuple(COLOURS[place % len(COLOURS)])


def method_of(line: Repeated) -> str:
    """The method of a classifier, or the one that trained the backbone of a detector or segmentation network."""
    if line.kind is None or not line.kind.networks:
        return line.experiment.method.name
    starts = [name for name in METHODS if line.label.startswith(name)]
    return max(starts, key=len, default=line.experiment.method.name)


class Looks:
    """Keyword arguments of matplotlib for the lines and runs of ``evidence``."""

    def __init__(self, evidence: Evidence) -> None:
        self.by_line: dict[str, dict[str, Any]] = {}
        self.by_run: dict[str, dict[str, Any]] = {}  # by the name of the run's folder
        count: dict[str, int] = {}
        for line in evidence.lines:
            method = method_of(line)
            number = count[method] = count.get(method, -1) + 1
            look = {"color": method_colour(method), "linestyle": DASHES[number % len(DASHES)]}
            self.by_line[line.label] = {**look, "marker": MARKERS[number % len(MARKERS)]}
            for seed, result in enumerate(line.results):
                self.by_run[result.name] = {**look, "marker": MARKERS[(number + seed) % len(MARKERS)]}

    def line(self, line: Repeated) -> dict[str, Any]:
        return self.by_line[line.label]

    def run(self, run: Run) -> dict[str, Any]:
        return self.by_run[run.result.name]

    def named(self, name: str, index: int) -> dict[str, Any]:
        """The look of the run in the folder ``name``, or the colour ``index`` for one that is not in the report."""
        return self.by_run.get(name, {"color": colour(index), "linestyle": "-"})
