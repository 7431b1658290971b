"""The lines of a search on the terminal: one for each trial that has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixskd.comparison.display import Display
from mixskd.comparison.search.leaderboard import outcome, shown_settings, winner
from mixskd.errors.text import visible


class TrialsDisplay(Display):
    """Prints a line for each trial with its ``score``; the single runs show nothing, since each has its log."""

    def __init__(self, score: str = "top-1", *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.score = score

    def say(self, text: str) -> None:
        self.console.print(visible(text))

    def trial(self, trials: Sequence[Any], number: int, last_rung: int, left: float | None, used: float | None) -> None:
        """Print the line of the trial ``number``: its settings, its end, the best so far and the budget.

        ``left`` is in seconds, ``used`` the fraction of the operations; None without such a limit.
        """
        trial = next(trial for trial in trials if trial.number == number)
        best = winner(trials)
        parts = [f"trial {number + 1}: {settings_text(trial.user_attrs['settings'], number)}: "
                 f"{outcome(trial, last_rung, self.score)}"]  # fmt: skip
        if best is not None:
            parts.append(f"best so far {best.value:.2f} % (trial {best.number + 1})")
        if left is not None:
            parts.append(f"{left / 60:.0f} min left")
        if used is not None:
            parts.append(f"{100 * min(1.0, used):.0f} % of the operations used")
        self.console.print(visible("; ".join(parts)))


def settings_text(settings: Mapping[str, Any], number: int) -> str:
    """The settings of a trial in a line."""
    if number == 0:
        return "the recipe"
    named = [settings["method"], *([settings["backbone"]] if "backbone" in settings else [])]
    return ", ".join(filter(None, (*named, shown_settings(settings))))
