"""The data set of a detection or segmentation run: files by split, with their boxes or masks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixskd.config.data import DataConfig
from mixskd.data.bundle import SPLITS, DataBundle, ImageSet, check_class_names
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError
from mixskd.transfer.pipeline import Pipeline


@dataclass(frozen=True)
class AnnotatedBundle(DataBundle):
    """``splits`` hold the files, and ``annotated`` the same images with their boxes or masks."""

    annotated: Mapping[str, Any] = field(default_factory=dict)

    def update(self, digest: Any) -> None:
        """Add the annotations and the files' names to ``digest``, of hashlib."""
        for split in self.splits:
            self.annotated[split].update(digest)

    def about_labels(self) -> str:
        """One line about the labels of the training images."""
        about: str = self.annotated["train"].about_labels()
        return about

    def check(self) -> None:
        """Raises UserError for classes or splits with which no run can be trained and scored."""
        if "val" not in self.splits and "test" not in self.splits:
            raise UserError(f"{self.source} has neither a val nor a test split; add one, since a run must be scored")
        check_class_names(self.classes, f" of {self.source}")
        for name, split in self.annotated.items():
            split.check(f"the {name} split of {self.source}")


def load_annotated(
    pipeline: Pipeline, source: str, mean: tuple[float, ...], std: tuple[float, ...], data: DataConfig, *,
    flip: bool = True,
) -> AnnotatedBundle:  # fmt: skip
    """The images at ``source`` with their boxes or masks; ``data`` says how their files are examined.

    Raises UserError for data that cannot be used.
    """
    found = pipeline.load(source, data)
    annotated = {name: found[name] for name in SPLITS if name in found}
    files = {name: ImageSet(split.files, np.zeros(len(split), dtype=np.int64)) for name, split in annotated.items()}
    notes = tuple(note for split in annotated.values() for note in split.notes)
    preprocess = Preprocess(pipeline.image_size, mean, std)
    root = Path(source).expanduser()
    made = AnnotatedBundle(files, annotated["train"].classes, preprocess, flip, notes, root, annotated=annotated)
    made.check()
    return made
