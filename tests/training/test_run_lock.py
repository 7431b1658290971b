"""Two processes at one run, failed starts, and restarts by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mixskd
from mixskd.config.build import default_out
from mixskd.errors import UserError
from mixskd.training import run as run_module
from mixskd.training.run_lock import NAME, run_lock

SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "baseline", "run": {"epochs": 1, "batch_size": 4, "progress": False},
}  # fmt: skip
HOLD = (
    "import sys, time, os\nfrom pathlib import Path\nfrom mixskd.training.run_lock import run_lock\n"
    "with run_lock(Path(sys.argv[1])):\n"
    "    if os.fork() == 0: time.sleep(4); os._exit(0)\n"
    "    print('held', flush=True); time.sleep(30)\n"
)


def test_run_is_locked_until_its_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process is using the run"), run_lock(folder):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with run_lock(folder):  # though a child of the killed process lives on
        assert (folder / NAME).exists()
        with pytest.raises(UserError, match="another process is using the run"), run_lock(folder):
            pass
    assert folder.is_dir()  # the killed process had made it
    assert not (folder / NAME).exists()


def test_one_of_many_processes_gets_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom mixskd.training.run_lock import run_lock\n"
        "from mixskd.errors import UserError\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        with run_lock(Path(sys.argv[1]) / 'run'):\n"
        "            flag = Path(sys.argv[1]) / 'flag'; flag.touch(exist_ok=False); flag.unlink()\n"
        "    except UserError: pass\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_removed_folder_is_not_entered_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    look = Path.stat

    def removed_after_a_look(self: Path, **options: Any) -> Any:
        found = look(self, **options)
        if self == folder:
            monkeypatch.setattr(Path, "stat", look)
            folder.rmdir()
        return found

    monkeypatch.setattr(Path, "stat", removed_after_a_look)
    with run_lock(folder):
        assert (folder / NAME).exists()


def test_running_run_refuses_other_processes(tmp_path: Path, npz: Path) -> None:
    out = tmp_path / "run"
    with run_lock(out):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match="another process is using the run"):
                mixskd.train(data=str(npz), out=str(out), **SETTINGS, **options)
    assert not out.exists()


@pytest.mark.parametrize("error", [UserError("mine"), TypeError("odd"), KeyboardInterrupt()])
def test_failed_start_leaves_no_files(
    error: BaseException, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "build_parts", fail)
        with pytest.raises(type(error)):
            mixskd.train(data=str(npz), out=str(tmp_path / "run"), **SETTINGS)
    assert not (tmp_path / "run").exists()
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **SETTINGS)


def test_restart_uses_the_numbered_folder_of_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def chosen(restarted: bool = False) -> str:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(int(restarted)))
        return default_out("runs/digits", resume=False).removeprefix("runs/")

    first = chosen()
    assert chosen(restarted=True) == first
    os.makedirs(f"runs/{first}")
    assert chosen() == f"{first}-2"
    assert chosen(restarted=True) == first
    Path(f"runs/{first}/summary.json").touch()
    assert chosen(restarted=True) == f"{first}-2"
    os.makedirs(f"runs/{first}-2")
    assert chosen(restarted=True) == f"{first}-2"
    assert chosen() == f"{first}-3"


def test_torchrun_restarts_a_run_that_was_killed_before_it_began(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    summary = mixskd.train(data=str(npz), out=str(tmp_path / "run"), **SETTINGS)
    assert summary["updates"] == 3
    assert time.time() - (tmp_path / "run" / "summary.json").stat().st_mtime < 60


def test_checkpoint_of_another_run_is_refused_without_changes(tmp_path: Path, npz: Path) -> None:
    for seed in (0, 1):
        run = {**SETTINGS, "run": {**SETTINGS["run"], "seed": seed}}
        mixskd.train(data=str(npz), out=str(tmp_path / str(seed)), **run)
    (tmp_path / "0" / "checkpoint.pt").write_bytes((tmp_path / "1" / "checkpoint.pt").read_bytes())
    before = {file.name: file.read_bytes() for file in (tmp_path / "0").iterdir()}
    with pytest.raises(UserError, match=r"belongs to another run: run\.seed 1 -> 0"):
        mixskd.train(data=str(npz), out=str(tmp_path / "0"), resume=True, **SETTINGS)
    assert {file.name: file.read_bytes() for file in (tmp_path / "0").iterdir()} == before


def test_restart_with_overwrite_does_not_resume_the_earlier_run(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixskd.train(data=str(npz), out=str(tmp_path / "run"), **SETTINGS)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "build_parts", lambda *_, **__: os.kill(os.getpid(), 9))
        child = os.fork()
        if child == 0:
            mixskd.train(data=str(npz), out=str(tmp_path / "run"), overwrite=True, **SETTINGS)
        assert os.waitpid(child, 0)[1] == 9
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    others = {**SETTINGS, "run": {**SETTINGS["run"], "epochs": 2}}
    assert mixskd.train(data=str(npz), out=str(tmp_path / "run"), overwrite=True, **others)["updates"] == 6
