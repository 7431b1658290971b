"""Bad annotations: the first one stops the run before training, or they are left out and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixskd.errors import UserError


@dataclass
class BadItems:
    """What is wrong with a data set. Without ``skip`` the first problem raises a UserError."""

    skip: bool
    found: list[str] = field(default_factory=list)

    def report(self, problem: str) -> None:
        """Note ``problem``, one line that names the file. Raises UserError unless bad items are skipped."""
        if not self.skip:
            raise UserError(f"{problem}; correct it, or leave such items out with --skip-bad-annotations")
        self.found.append(problem)

    def notes(self, where: str) -> tuple[str, ...]:
        """One line that counts what was left out in ``where``; none if nothing was."""
        if not self.found:
            return ()
        return (f"{len(self.found)} bad annotations of {where} are left out; the first: {self.found[0]}",)
