"""What detectors and segmentation networks find, beside the annotations, where both can still be read."""

from __future__ import annotations

from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence, Run
from mixskd.reporting.page.blocks import Block, Content, fold
from mixskd.reporting.page.mistakes import data_address

EACH_RUN = 4  # images
MOST_RUNS = 12
SIDE = 280  # pixels of a picture
THRESHOLD = 0.5


def example_section(evidence: Evidence) -> Content:
    """A folded part for the first run of each setting; empty if no run can show any."""
    chosen = [(line, run) for line, run in evidence.first_runs() if line.kind is not None][:MOST_RUNS]
    parts = [block for _, run in chosen for block in _of_run(run)]
    if not parts:
        return []
    first = "Left, the annotation; right, what the weights of the first run of each setting find."
    if any(line.kind is not None and line.kind.name == "detection" for line, _ in chosen):
        first += f" Boxes have a score of at least {THRESHOLD}."
    return [Block("text", first), *parts]


def _of_run(run: Run) -> Content:
    """The pictures of one run; nothing if its weights or its images are gone."""
    # Imported here: torchvision's detectors take a second, which a report of classifiers need not wait for.
    from mixskd.transfer.examples import examples

    split = run.result.split
    try:
        made = examples(run.result.folder, split, EACH_RUN, threshold=THRESHOLD)
    except (UserError, OSError, KeyError):
        return []
    pairs = [
        (data_address(image, SIDE), f"{one.file.name}, {what}")
        for one in made
        for image, what in ((one.annotated, "annotated"), (one.found, "found"))
    ]
    return fold(f"{run.label}: {len(made)} images of {split}", [Block("pairs", pairs)])
