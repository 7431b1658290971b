"""What a run leaves behind: config.yaml, metrics.csv, checkpoint.pt, model.safetensors, summary.json."""

from __future__ import annotations

import csv
import io
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mixskd
from mixskd.config import Experiment, difference, from_dict, read_yaml, to_yaml
from mixskd.errors import UserError
from mixskd.files import write_text


@dataclass(frozen=True)
class RunFolder:
    """The files of one run under ``path``."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def claim(self, experiment: Experiment, *, resume: bool) -> bool:
        """Make the folder this experiment's; whether there is a checkpoint to go on from.

        Raises UserError, and changes nothing, if it holds another configuration, or a run and ``resume`` is not set.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder")
        if self.config.exists():
            changed = difference(from_dict(read_yaml(self.config)), experiment)
            if changed:
                raise UserError(f"{self.path} holds a run of another configuration: {'; '.join(changed)}; "
                                "choose another --out, or give the same settings")  # fmt: skip
            if not resume:
                raise UserError(f"{self.path} already holds this run; add --resume to go on, or choose another --out")
            return self.checkpoint.exists()
        if resume:
            raise UserError(f"nothing to resume in {self.path}; leave --resume out to start a run there")
        # Hidden files are no one's work: those of the disk, or of a write that was killed.
        if self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise UserError(f"--out {self.path} holds files that are no run; choose an empty or a new folder")
        write_text(self.config, to_yaml(experiment))
        return False

    def write_metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Replace metrics.csv by ``rows``, one an epoch; what a row lacks is left empty.

        Figures that depend on the clock are left to the summary, so that equal runs give equal files.
        """
        if not rows:
            self.metrics.unlink(missing_ok=True)
            return
        text = io.StringIO()
        columns = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics, text.getvalue())

    def write_tensorboard(self, rows: Sequence[dict[str, float]]) -> None:
        """Replace the event file under ``tensorboard/`` by ``rows``, so that a resumed run shows no epoch twice."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            for row in rows:
                for name, value in row.items():
                    writer.add_scalar(name.replace("_", "/", 1), value, int(row["epoch"]))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Versions, processor and the git commit of the source, for a summary; the commit is null outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # Only a checkout that tracks this very file is the source's own.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "mixskd": mixskd.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "commit": commit,
    }
