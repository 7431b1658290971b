"""Each write of a run fails once, in turn; afterwards the run goes on to the same bits."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import mixskd
from mixskd.errors import UserError
from tests.training.test_checkpoint_writer import write_beside

SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "baseline", "data": "toy.npz",
    "run": {"epochs": 2, "batch_size": 4, "progress": False, "checkpoint_every_steps": 2},
}  # fmt: skip


class Disk:
    """``os.fsync``, through which every file of a run goes; the write of that number fails."""

    def __init__(self, fails: int | None = None) -> None:
        self.writes, self.fails, self.sync = 0, fails, os.fsync

    def __call__(self, descriptor: int) -> None:
        self.writes += 1
        if self.writes == self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.sync(descriptor)


def files(run: str) -> dict[str, bytes]:
    """What equal runs have equal."""
    return {name: Path(run, name).read_bytes() for name in ("metrics.csv", "model.safetensors")}


@pytest.mark.parametrize("beside", [False, True])
def test_every_write_may_fail(beside: bool, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(npz.parent)
    if beside:
        write_beside(monkeypatch)
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk)
    mixskd.train(out="whole", **SETTINGS)
    assert disk.writes >= 6
    for number in range(1, disk.writes + 1):
        out = f"run{number}"
        monkeypatch.setattr(os, "fsync", Disk(fails=number))
        with pytest.raises(UserError, match="no space left on the disk"):
            mixskd.train(out=out, **SETTINGS)
        monkeypatch.setattr(os, "fsync", disk.sync)
        assert not list(Path().glob(f"{out}/.*")), "a temporary file is left"
        mixskd.train(out=out, resume=Path(out, "checkpoint.pt").exists(), **SETTINGS)
        assert files(out) == files("whole"), number
        assert {path.name for path in Path(out).iterdir()} == {path.name for path in Path("whole").iterdir()}
