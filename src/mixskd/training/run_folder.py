"""The files that a run writes: config.yaml, metrics.csv, checkpoint.pt, model.safetensors, summary.json."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mixskd.config import Experiment, to_yaml
from mixskd.errors import UserError
from mixskd.runtime.files import write_text
from mixskd.runtime.json_file import write_json
from mixskd.training.checkpoint import previous


class RunFolder:
    """The files of one run under ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics, self.division = path / "config.yaml", path / "metrics.csv", path / "splits.csv"
        self.checkpoint, self.model = path / "checkpoint.pt", path / "model.safetensors"
        self.summary = path / "summary.json"

    def check(self, *, resume: bool, overwrite: bool = False, changes: Callable[[], list[str]] = list) -> bool:
        """Whether the folder has a checkpoint to resume from. Nothing is changed.

        ``changes`` returns how the settings differ from those of the run in the folder; it is called if that run is to
        be kept. A run without a checkpoint starts from the beginning. Raises UserError for a run of another
        configuration, for a run if neither ``resume`` nor ``overwrite`` is set, and for files that belong to no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder")
        if resume and overwrite:
            raise UserError("--resume continues a run and --overwrite removes it; give only one of them")
        replaced = overwrite and self.config.exists()
        links = [path for path in self.files if path.is_symlink() and path.is_dir()]
        if replaced and links:  # found before anything is removed
            raise UserError(f"{links[0]} is a link to a folder, which --overwrite does not remove; remove the link "
                            "yourself, or choose another --out")  # fmt: skip
        if not replaced and self.config.exists() and (self.checkpoint.exists() or self.summary.exists() or resume):
            if changed := changes():
                raise UserError(f"{self.path} holds a run of another configuration: {'; '.join(changed)}; choose "
                                "another --out, give the same settings, or add --overwrite")  # fmt: skip
            if not resume:
                raise UserError(f"{self.path} already holds this run; add --resume to continue, --overwrite to start "
                                "again, or choose another --out")  # fmt: skip
            if self.summary.exists() and not self.checkpoint.exists():
                raise UserError(f"the run in {self.path} is finished and its checkpoint is gone: there is nothing to "
                                "resume; add --overwrite to start again, or choose another --out")  # fmt: skip
            return self.checkpoint.exists()
        if resume:
            raise UserError(f"nothing to resume in {self.path}; leave --resume out to start a run there")
        # Hidden files are ignored: the system's, or those of a write that was killed.
        known = {path.name for path in self.files}
        if self.path.is_dir() and any(e.name not in known and not e.name.startswith(".") for e in self.path.iterdir()):
            raise UserError(f"--out {self.path} holds files that belong to no run; choose an empty or a new folder")
        return False

    def begin(self, experiment: Experiment) -> None:
        """Start a run in the folder: write config.yaml and remove all other files of an earlier run.

        Raises UserError, and changes nothing, if config.yaml cannot be written.
        """
        write_text(self.config, to_yaml(experiment))
        self._remove(path for path in self.files if path != self.config)

    def extend(self, experiment: Experiment) -> None:
        """Let the finished run go on as ``experiment``, which has more epochs."""
        # In this order a kill between the two leaves a run that --resume finishes.
        self.summary.unlink(missing_ok=True)
        write_text(self.config, to_yaml(experiment))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files and folders that a run may write."""
        others = (self.path / name for name in ("tensorboard", "wandb", "mlflow_run.txt", "evaluation"))
        checkpoints = (self.checkpoint, previous(self.checkpoint))
        return (self.config, self.metrics, *checkpoints, self.model, self.summary, self.division, *others)

    def remove_run(self) -> None:
        """Remove the files of a run, if any, and nothing else."""
        self._remove(self.files)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; the file has a digest of its content."""
        write_json(self.summary, summary)
