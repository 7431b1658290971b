"""Images of finished runs: training batches of classifiers, and what detectors and segmentation networks find."""

import json

import numpy as np

from mixskd.config import to_dict
from mixskd.drawing.picture import Cell
from mixskd.errors import UserError
from mixskd.reporting.evidence import Evidence, Readable, Run
from mixskd.reporting.grouping import Repeated, of_kind
from mixskd.reporting.page.blocks import Block, Content, fold
from mixskd.reporting.page.mistakes import data_address
from mixskd.reporting.show_data import batch_columns

IMAGES = 3  # rows of a setting's picture
MOST_SETTINGS = 12  # with a picture
# Of detectors and segmentation networks: images a run, runs, pixels of a picture, and the lowest score of a box.
EACH_RUN, MOST_RUNS, SIDE, THRESHOLD = 4, 12, 280, 0.5


def training_image_section(evidence: Evidence, readable: Readable) -> Content:
    """A folded picture for each setting that shows other images than those before it, and a note on the others."""
    parts, shown, without = Content(), set[str](), list[str]()
    for line in of_kind(evidence.lines, None):
        experiment = to_dict(line.experiment)
        key = json.dumps([experiment["data"], experiment["method"]], sort_keys=True, default=str)
        if key in shown or len(parts) == MOST_SETTINGS:
            continue
        columns = _columns(line, readable)
        if columns is None:
            without.append(line.label)
            continue
        shown.add(key)
        pictures = {
            title: [(data_address(image if image.dtype == np.uint8 else image * 255), text) for image, text in cells]
            for title, cells in columns.items()
        }
        parts += fold(line.label, [Block("batch", pictures)])
    if parts:
        about = (
            "Training images as they are stored and as they are augmented, then the views, partners and mixes that the "
            "method asks for, with the share of each label. They are like those of the runs, not the very same. "
            f"Settings that show the same are drawn once, and at most {MOST_SETTINGS}."
        )
        parts = [Block("text", about), *parts]
    if without:
        names = ", ".join(without[:MOST_SETTINGS]) + (" and others" if len(without) > MOST_SETTINGS else "")
        parts += [Block("note", f"Without a picture, since the data cannot be read from here: {names}.")]
    return parts


def _columns(line: Repeated, readable: Readable) -> dict[str, list[Cell]] | None:
    """The columns of the picture, or None if the data cannot be read, or no longer fit the method."""
    data = readable.bundle(line.experiment.data)
    if data is None:
        return None
    try:
        return batch_columns(line.experiment, data, min(IMAGES, len(data.train)))
    except (UserError, OSError, ValueError):
        return None


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
    from mixskd.transfer.predicting import examples

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
