"""What detectors and segmentation networks find, beside what is annotated, where both can still be read."""

from __future__ import annotations

from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence, Run
from mixskd.reporting.page import elements as pieces
from mixskd.reporting.page.mistakes import data_address
from mixskd.reporting.repeated import Repeated

EACH_RUN = 4  # images
MOST_RUNS = 12
SIDE = 280  # pixels of a picture
THRESHOLD = 0.5


def example_section(evidence: Evidence) -> str:
    """As HTML, a folded part for the first run of each setting; empty if no run can show any."""
    chosen = [(line, run) for line, run in evidence.first_runs() if line.kind is not None][:MOST_RUNS]
    parts = [pieces.folded(title, inside) for line, run in chosen for title, inside in _of_run(line, run)]
    if not parts:
        return ""
    first = "Left, what is annotated; right, what the weights of the first run of each setting find."
    if any(line.kind is not None and line.kind.name == "detection" for line, _ in chosen):
        first += f" Boxes have a score of at least {THRESHOLD}."
    return pieces.paragraph(first) + "".join(parts)


def _of_run(line: Repeated, run: Run) -> list[tuple[str, str]]:
    """Title and pictures of one run; nothing if its weights or its images are gone."""
    # Imported here: torchvision's detectors take a second, which a report of classifiers need not wait for.
    from mixskd.transfer.examples import examples

    split = run.result.split
    try:
        made = examples(run.result.folder, split, EACH_RUN, threshold=THRESHOLD)
    except (UserError, OSError, KeyError):
        return []
    pictures = "".join(
        pieces.picture(data_address(one.annotated, SIDE), f"{one.file.name}, annotated")
        + pieces.picture(data_address(one.found, SIDE), f"{one.file.name}, found")
        for one in made
    )
    return [(f"{run.label}: {len(made)} images of {split}", f'<div class="pairs">{pictures}</div>')]
