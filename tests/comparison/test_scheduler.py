"""Grids carried out: in order, past failures, after a kill, beside another process, and by the cluster launchers."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import mixskd
from mixskd.cli.main import main
from mixskd.comparison.comparison import Comparison, tabulate
from mixskd.comparison.display import RunsDisplay
from mixskd.comparison.grid import grid_from
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.launchers.local import Local, visible_gpus
from mixskd.comparison.plan import plan
from mixskd.comparison.scheduler import carry_out_all, reason
from mixskd.comparison.worker import ELSEWHERE, carry_out, lock_file
from mixskd.config import to_yaml
from mixskd.runtime.files import locked
from mixskd.training.interrupt import Interrupted
from tests.conftest import write_npz
from tests.processes import SECONDS
from tests.processes import mixskd as mixskd_command

RUN = {"epochs": 2, "batch_size": 4, "evaluate_every": 1}


def small(npz: Path, **more: Any) -> dict[str, Any]:
    return {"backbones": ["wrn_10_1"], "data": {"source": str(npz), "per_class": None}, "run": RUN, **more}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A grid with a method that needs a teacher and one that fails."""
    folder = tmp_path_factory.mktemp("done")
    values = small(
        write_npz(folder / "toy.npz"), methods=["tfkd_self", "baseline", "bad=mixup[run.precision=fp16]"], seeds=[0, 1]
    )
    return mixskd.compare(**values, out=str(folder / "grid"), jobs=1, devices="cpu", progress=False)


def test_a_failed_run_stops_no_other_and_is_told_in_a_line(done: Comparison) -> None:
    assert set(done.failures) == {"bad-wrn_10_1-seed0", "bad-wrn_10_1-seed1"}
    message = done.failures["bad-wrn_10_1-seed0"]
    assert "fp16" in message
    assert message.endswith(f"(exit code 2, see {done.folder}/logs/bad-wrn_10_1-seed0.log)")
    assert [(row["method"], row["seeds"]) for row in done.rows] == [("tfkd_self", "0, 1"), ("baseline", "0, 1")]


def test_each_run_is_an_ordinary_run_folder(done: Comparison) -> None:
    folder = done.folder / "tfkd_self-wrn_10_1-seed1"
    assert {f.name for f in folder.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoint.pt", "model.safetensors", "summary.json",
    }  # fmt: skip
    teacher = done.folder / "baseline-wrn_10_1-seed1"
    assert f"teacher: {teacher}" in (folder / "config.yaml").read_text()
    assert (teacher / "summary.json").stat().st_mtime < (folder / "summary.json").stat().st_mtime


def test_the_table_of_plain_run_folders(done: Comparison, tmp_path: Path) -> None:
    for run in done.folder.glob("*-seed*"):
        name = run.name.replace("-wrn_10_1", "")
        (tmp_path / name).mkdir()
        for file in ("config.yaml", "summary.json"):
            if (run / file).exists():
                (tmp_path / name / file).write_bytes((run / file).read_bytes())
    rows = {row["method"]: row for row in tabulate(tmp_path)}
    assert rows == {row["method"]: row for row in done.rows}
    with (tmp_path / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [(run["seed"], run["updates"], run["originals seen"]) for run in runs if run["method"] == "baseline"] == [
        ("0", "6", "24"), ("1", "6", "24"),
    ]  # fmt: skip


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
def test_a_kill_saves_what_runs_and_the_next_call_goes_on(
    tmp_path: Path, npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    name = "baseline-wrn_10_1-seed0"
    checkpoint, metrics = out / name / "checkpoint.pt", out / name / "metrics.csv"
    argv = ["compare", "--data", str(npz), "--methods", "baseline", "--seeds", "0", "--epochs", "900"]
    argv += [
        "--batch-size",
        "4",
        "--data.per_class",
        "none",
        "--run.evaluate_every",
        "900",
        "--jobs",
        "1",
        "--out",
        str(out),
    ]
    command = mixskd_command(tmp_path / "log", *argv)
    wait_for(checkpoint.exists)
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL

    def free() -> bool:
        with locked(lock_file(out, name)) as mine:
            return mine

    wait_for(free)  # the run saves itself and ends, though nobody could tell it to
    log = out / "logs" / f"{name}.log"
    assert "stopped by SIGTERM; saved" in log.read_text()
    rows = len(metrics.read_text().splitlines()) - 1
    assert 0 < rows < 900

    def interrupt() -> None:
        wait_for(lambda: len(metrics.read_text().splitlines()) - 1 > rows)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted) as stopped:
        main(argv)
    thread.join()
    assert stopped.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err.endswith("mixskd: stopped; the same command continues\n")
    assert log.read_text().count("stopped by SIGTERM; saved") == 2
    assert rows < len(metrics.read_text().splitlines()) - 1 < 900


class Fake:
    """An launcher whose runs end at once with the codes given, or write their summary."""

    def __init__(self, slots: int | None, codes: dict[str, list[int]] | None = None) -> None:
        self.slots, self.codes = slots, codes or {}
        self.submitted: list[str] = []
        self.pending: list[Future[int]] = []
        self.most = 0

    def submit(self, folder: Path, name: str) -> Any:
        self.submitted.append(name)
        self.most = max(self.most, sum(not future.done() for future in self.pending) + 1)
        code = self.codes.get(name, [0]).pop(0) if self.codes.get(name) else 0
        if code == 0:
            summary = {"last": {"top1": 1.0}, "seconds": 1}
            (folder / name).mkdir(parents=True)
            (folder / name / "summary.json").write_text(json.dumps(summary))
        future: Future[int] = Future()
        future.set_result(code)
        return future

    def stop(self) -> None:
        self.submitted.append("stopped")

    def close(self) -> None:
        pass


def fake_runs(tmp_path: Path, methods: str, seeds: str = "0") -> list[Any]:
    return plan(grid_from({"methods": methods, "backbones": "wrn_10_1", "seeds": seeds}), tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixskd.comparison.scheduler.PAUSE", 0.001)
    monkeypatch.setattr("mixskd.comparison.scheduler.RETRY", 0.01)


@pytest.mark.usefixtures("quick")
def test_finished_runs_are_skipped_and_failed_ones_tried_again(
    done: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Fake(1, {name: [2] for name in done.failures})
    monkeypatch.setitem(LAUNCHERS, "local", lambda *_: launcher)
    assert main(["compare", "--config", str(done.folder / "grid.yaml"), "--out", str(done.folder)]) == 1
    assert launcher.submitted == list(done.failures)
    output = capsys.readouterr()
    assert "6 runs, 4 of them finished before" in output.err
    assert output.err.splitlines()[-1] == f"mixskd: bad-wrn_10_1-seed1 failed: {done.failures['bad-wrn_10_1-seed1']}"
    assert "tfkd_self" in output.out


@pytest.mark.usefixtures("quick")
def test_a_run_waits_for_its_teacher_and_fails_with_it(tmp_path: Path) -> None:
    runs = fake_runs(tmp_path / "good", "tfkd_self,mixup")
    launcher = Fake(None)
    assert carry_out_all(runs, launcher, RunsDisplay(runs, quiet=True)) == {}
    assert sorted(launcher.submitted) == sorted(run.name for run in runs)
    order = {name: place for place, name in enumerate(launcher.submitted)}
    assert order["baseline-wrn_10_1-seed0"] < order["tfkd_self-wrn_10_1-seed0"]

    runs = fake_runs(tmp_path / "bad", "tfkd_self,mixup")
    failures = carry_out_all(
        runs, Fake(1, {"baseline-wrn_10_1-seed0": [-signal.SIGKILL]}), RunsDisplay(runs, quiet=True)
    )
    assert failures["baseline-wrn_10_1-seed0"].startswith("killed by SIGKILL; see ")
    assert failures["tfkd_self-wrn_10_1-seed0"] == "baseline-wrn_10_1-seed0, whose weights it needs, failed"
    assert (tmp_path / "bad" / "mixup-wrn_10_1-seed0" / "summary.json").exists()


@pytest.mark.usefixtures("quick")
def test_a_run_that_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")
    launcher = Fake(1, {run.name: [ELSEWHERE, ELSEWHERE]})
    assert carry_out_all([run], launcher, RunsDisplay([run], quiet=True)) == {}
    assert launcher.submitted == [run.name] * 3


@pytest.mark.usefixtures("quick")
def test_a_run_that_another_comparison_did_otherwise_is_not_taken_for_ours(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")

    class Other(Fake):
        def submit(self, folder: Path, name: str) -> Any:
            task = super().submit(folder, name)
            experiment = dataclasses.replace(run.experiment, run=dataclasses.replace(run.experiment.run, epochs=3))
            run.files.config.write_text(to_yaml(experiment))
            return task

    failures = carry_out_all([run], Other(1), RunsDisplay([run], quiet=True))
    assert "run.epochs 3 -> 205" in failures[run.name]


def test_a_locked_run_is_not_begun(tmp_path: Path) -> None:
    with locked(lock_file(tmp_path, "run")) as mine:
        assert mine
        assert carry_out(tmp_path, "run") == ELSEWHERE
    assert not (tmp_path / "run").exists()


def test_why_a_run_failed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert reason(log, 1) == f"it left no log (exit code 1, see {log})"
    log.write_text("mixskd train\nTraceback ...\nRuntimeError: CUDA out of memory\n\n")
    assert reason(log, 1) == f"RuntimeError: CUDA out of memory (exit code 1, see {log})"


@pytest.mark.usefixtures("quick")
def test_a_signal_stops_the_engine(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")

    class Stopping(Fake):
        def submit(self, folder: Path, name: str) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return super().submit(folder, name)

    launcher = Stopping(1, {run.name: [ELSEWHERE]})
    with pytest.raises(Interrupted) as stopped:
        carry_out_all([run], launcher, RunsDisplay([run], quiet=True))
    assert stopped.value.code == 128 + signal.SIGINT
    assert launcher.submitted[-1] == "stopped"


def test_threads_and_gpus_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert visible_gpus("auto") == ["4", "6"]
    assert visible_gpus("cuda:6") == ["6"]
    launcher = Local(Path(), 4, "auto", {})
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in launcher.places] == ["4", "6", "4", "6"]
    assert {place.environment["OMP_NUM_THREADS"] for place in launcher.places} == {"3"}
    assert Local(Path(), None, "auto", {}).slots == 2
    assert Local(Path(), None, "cpu", {}).slots == 8


@pytest.mark.long
def test_slurm_in_submitits_local_mode(tmp_path: Path, npz: Path) -> None:
    pytest.importorskip("submitit")
    out = tmp_path / "grid"
    argv = ["compare", "--data", str(npz), "--methods", "mixup,bad=mixup[run.precision=fp16]", "--seeds", "0"]
    argv += ["--data.per_class", "none", "--epochs", "1", "--batch-size", "4", "--out", str(out), "--launcher", "slurm"]
    argv += ["--launcher.cluster", "local", "--launcher.timeout_min", "5"]
    assert main(argv) == 1
    assert (out / "mixup-wrn_10_1-seed0" / "summary.json").exists()
    assert "fp16" in (out / "logs" / "bad-wrn_10_1-seed0.log").read_text()
    assert list((out / "logs" / "submitit").iterdir())


@pytest.mark.slow
def test_ray_on_this_machine(tmp_path: Path, npz: Path) -> None:
    pytest.importorskip("ray")
    values = small(npz, methods=["mixup", "bad=mixup[run.precision=fp16]"], seeds=[0])
    done = mixskd.compare(**values, out=str(tmp_path / "grid"), launcher="ray", progress=False)
    assert list(done.failures) == ["bad-wrn_10_1-seed0"]
    assert [row["method"] for row in done.rows] == ["mixup"]


@pytest.mark.parametrize(("launcher", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named(
    launcher: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["compare", "--launcher", launcher, "--out", str(tmp_path / "grid")]) == 2
    assert (
        capsys.readouterr().err
        == f"mixskd: error: the {launcher} launcher needs {package}: pip install 'mixskd[{launcher}]'\n"
    )
    assert not (tmp_path / "grid").exists()
