"""Bad images and annotations: the first one stops the run before training, or they are left out and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixskd.errors import UserError


@dataclass
class BadItems:
    """The bad items of one split. A kind of item that is not skipped raises a UserError at once."""

    skip_annotations: bool = False
    skip_images: bool = False
    annotations: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    empty_boxes: list[str] = field(default_factory=list)

    def annotation(self, problem: str) -> None:
        """Count a bad annotation; ``problem`` is one line that names the file."""
        if not self.skip_annotations:
            raise UserError(f"{problem}; correct it, or leave such items out with --skip-bad-annotations")
        self.annotations.append(problem)

    def image(self, problem: str) -> None:
        """Count an image that cannot be read; ``problem`` is one line that names the file."""
        if not self.skip_images:
            raise UserError(problem)
        self.images.append(problem)

    def notes(self, where: str) -> tuple[str, ...]:
        """One line for each kind of item of ``where`` that was left out."""
        kinds = {
            "bad annotations": self.annotations,
            "unreadable images": self.images,
            "boxes of zero or almost zero width or height": self.empty_boxes,
        }
        return tuple(
            f"{len(found)} {kind} of {where} are left out; the first: {found[0]}"
            for kind, found in kinds.items()
            if found
        )
