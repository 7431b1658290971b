"""metrics.csv: one row per epoch."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from mixskd.runtime.files import write_text
from mixskd.training.listeners.base import Listener, RunInfo


class MetricsFile(Listener):
    """Rewrites metrics.csv of the run's folder after each epoch; values that a row lacks are empty.

    Times are in the summary only, so that equal runs give equal files.
    """

    def start(self, info: RunInfo) -> None:
        self.path = info.folder / "metrics.csv"
        self.rows: list[Mapping[str, Any]] = list(info.rows)
        self._write()

    def epoch(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        if not self.rows:
            self.path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        columns = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
