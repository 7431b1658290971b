"""Grids carried out: in order, past failures, after a kill, beside another process, and by the cluster launchers."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mixskd
from mixskd.cli.main import main
from mixskd.comparison.comparison import Comparison, tabulate
from mixskd.comparison.display import RunsDisplay
from mixskd.comparison.grid import grid_from
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.launchers.local import Local, visible_gpus
from mixskd.comparison.launchers.slurm import MOST_IDLE_JOBS, Slurm, SlurmRun, minutes
from mixskd.comparison.plan import plan
from mixskd.comparison.scheduler import carry_out_all, last_words
from mixskd.comparison.worker import TRY_AGAIN, carry_out, settings_file
from mixskd.config import to_yaml
from mixskd.config.plugins import load_plugins
from mixskd.errors import UserError
from mixskd.methods import METHODS
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


def test_failed_run_stops_no_other_and_is_reported_in_one_line(done: Comparison) -> None:
    assert set(done.failures) == {"bad-wrn_10_1-seed0", "bad-wrn_10_1-seed1"}
    message = done.failures["bad-wrn_10_1-seed0"]
    assert "fp16" in message
    assert message.endswith(f"(exit code 2, see {done.folder}/logs/bad-wrn_10_1-seed0.log)")
    assert [(row["method"], row["seeds"]) for row in done.rows] == [("tfkd_self", "0, 1"), ("baseline", "0, 1")]


def test_each_run_has_the_files_of_mixskd_train(done: Comparison) -> None:
    folder = done.folder / "tfkd_self-wrn_10_1-seed1"
    assert {f.name for f in folder.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoint.pt", "model.safetensors", "summary.json",
    }  # fmt: skip
    teacher = done.folder / "baseline-wrn_10_1-seed1"
    assert f"teacher: {teacher}" in (folder / "config.yaml").read_text()
    assert (teacher / "summary.json").stat().st_mtime < (folder / "summary.json").stat().st_mtime


def test_tabulate_reads_plain_run_folders(done: Comparison, tmp_path: Path) -> None:
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
def test_killed_comparison_saves_its_runs_and_continues_later(
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
        with locked(settings_file(out, name).with_suffix(".lock")) as mine:
            return mine

    wait_for(free)  # the run saves itself and ends, though its parent was killed
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
    """A launcher whose runs end at once with the codes given, or write their summary."""

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
def test_second_call_skips_finished_runs_and_retries_failed_ones(
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
def test_run_waits_for_its_teacher_and_fails_with_it(tmp_path: Path) -> None:
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
def test_run_locked_by_another_process_is_retried(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")
    launcher = Fake(1, {run.name: [TRY_AGAIN, TRY_AGAIN]})
    assert carry_out_all([run], launcher, RunsDisplay([run], quiet=True)) == {}
    assert launcher.submitted == [run.name] * 3


@pytest.mark.usefixtures("quick")
def test_compare_rejects_run_with_other_settings(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")

    class Other(Fake):
        def submit(self, folder: Path, name: str) -> Any:
            task = super().submit(folder, name)
            experiment = dataclasses.replace(run.experiment, run=dataclasses.replace(run.experiment.run, epochs=3))
            run.files.config.write_text(to_yaml(experiment))
            return task

    failures = carry_out_all([run], Other(1), RunsDisplay([run], quiet=True))
    assert "run.epochs 3 -> 205" in failures[run.name]


def test_locked_run_is_not_started(tmp_path: Path) -> None:
    with locked(settings_file(tmp_path, "run").with_suffix(".lock")) as mine:
        assert mine
        assert carry_out(tmp_path, "run") == TRY_AGAIN
    assert not (tmp_path / "run").exists()


def test_reason_of_a_failure_is_the_last_line_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log, 1) == f"it left no log (exit code 1, see {log})"
    log.write_text("mixskd train\nTraceback ...\nRuntimeError: CUDA out of memory\n\n")
    assert last_words(log, 1) == f"RuntimeError: CUDA out of memory (exit code 1, see {log})"


@pytest.mark.usefixtures("quick")
def test_signal_stops_all_runs(tmp_path: Path) -> None:
    (run,) = fake_runs(tmp_path, "mixup")

    class Stopping(Fake):
        def submit(self, folder: Path, name: str) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return super().submit(folder, name)

    launcher = Stopping(1, {run.name: [TRY_AGAIN]})
    with pytest.raises(Interrupted) as stopped:
        carry_out_all([run], launcher, RunsDisplay([run], quiet=True))
    assert stopped.value.code == 128 + signal.SIGINT
    assert launcher.submitted[-1] == "stopped"


def test_threads_and_gpus_are_divided_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_trials_of_a_search_are_slurm_jobs_in_submitits_local_mode(tmp_path: Path, npz: Path) -> None:
    pytest.importorskip("submitit")
    pytest.importorskip("optuna")
    out = tmp_path / "search"
    argv = ["tune", "--data", str(npz), "--method", "baseline", "--methods", "bad=mixup[run.precision=fp16]"]
    argv += [
        "--backbone",
        "wrn_10_1",
        "--trials",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--data.val-holdout",
        "0.5",
    ]
    argv += ["--out", str(out), "--launcher", "slurm", "--launcher.cluster", "local", "--launcher.gpus_per_node", "0"]
    assert main([*argv, "--launcher.time_limit", "5"]) == 0
    assert (out / "trial001-rung1" / "summary.json").exists()
    (done, failed) = csv.DictReader((out / "leaderboard.csv").read_text().splitlines())
    assert (done["ended"], done["settings"]) == ("last rung", "the recipe")
    assert "fp16" in failed["ended"]
    assert list((out / "logs" / "submitit").iterdir())


SLOW_METHOD = """
import time
from mixskd.methods import METHODS
from mixskd.methods.baseline import Baseline

class Slow(Baseline):
    def forward(self, images, labels, draws=None, **extra):
        if self.training:
            time.sleep(3.2)
        return super().forward(images, labels)

METHODS["slow"] = Slow
"""


@pytest.mark.slow
def test_slurm_job_shorter_than_its_run_resumes_until_the_end(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is warned after 45 seconds and killed after 75; the run sleeps for 48."""
    submitit = pytest.importorskip("submitit")
    plugin = tmp_path / "slow-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text("[mixskd.plugins]\nslow = slow_method\n")
    (tmp_path / "slow_method.py").write_text(SLOW_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    start = submitit.local.local.start_controller

    def short(**arguments: Any) -> Any:
        assert arguments.pop("timeout_min") == 240  # the default limit, not submitit's own
        return start(**{**arguments, "timeout_min": 1.25, "signal_delay_s": 30})

    monkeypatch.setattr("submitit.local.local.start_controller", short)
    load_plugins.cache_clear()
    try:
        values = small(npz, methods=["slow"], seeds=[0], optim={"warmup_epochs": 0})
        values["run"] = {"epochs": 5, "batch_size": 4}
        done = mixskd.compare(
            **values, out=str(tmp_path / "grid"), launcher="slurm", launcher_options={"cluster": "local", "gpus": 0},
            progress=False,
        )  # fmt: skip
    finally:
        METHODS.pop("slow", None)
        load_plugins.cache_clear()
    assert done.failures == {}
    log = (tmp_path / "grid" / "logs" / "slow-wrn_10_1-seed0.log").read_text()
    assert "stopped by SIGTERM; saved" in log
    assert (tmp_path / "grid" / "slow-wrn_10_1-seed0" / "summary.json").exists()


class EndedJob:
    """A job of submitit that has ended with an exit code, or without any result in ``state``."""

    def __init__(self, code: int | None, state: str = "COMPLETED") -> None:
        self.code, self.state = code, state
        self.paths = SimpleNamespace(stderr=Path("logs/submitit/7_0_log.err"))

    def result(self) -> int:
        if self.code is None:
            raise pytest.importorskip("submitit").core.utils.UncompletedJobError("no result")
        return self.code


def test_preempted_slurm_job_is_tried_again_and_a_failed_one_is_not(tmp_path: Path) -> None:
    idle: dict[str, int] = {}
    assert SlurmRun(EndedJob(0), tmp_path, idle).result() == 0
    assert SlurmRun(EndedJob(2), tmp_path, idle).result() == 2
    for job in (EndedJob(None, "PREEMPTED"), EndedJob(128 + signal.SIGTERM), EndedJob(None, "TIMEOUT")):
        run = SlurmRun(job, tmp_path, idle)
        (tmp_path / "checkpoint.pt").write_text("new")
        assert run.result() == TRY_AGAIN
        (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"OUT_OF_MEMORY; see logs/submitit/7_0_log\.err"):
        SlurmRun(EndedJob(None, "OUT_OF_MEMORY"), tmp_path, idle).result()


def test_slurm_jobs_that_save_nothing_end_as_a_failure(tmp_path: Path) -> None:
    idle: dict[str, int] = {}
    for _ in range(MOST_IDLE_JOBS - 1):
        assert SlurmRun(EndedJob(None, "TIMEOUT"), tmp_path, idle).result() == TRY_AGAIN
    with pytest.raises(UserError, match=r"without a new checkpoint .* --launcher\.time_limit .* see logs/submitit"):
        SlurmRun(EndedJob(None, "TIMEOUT"), tmp_path, idle).result()


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("4:00:00", 240), ("2-01:30:00", 2970), ("0:00:30", 1), ("08:15", 495)]
)
def test_time_limit_is_read_as_slurm_writes_it(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": "soon"}, "launcher.time_limit must be minutes"),
        ({"time_limit": 0}, "1 minute or more"),
        ({"partitoin": "gpu"}, "no option 'partitoin'; did you mean 'partition'"),
        ({"gpus": -1}, "launcher.gpus must be"),
    ],
)
def test_mistake_in_a_slurm_option_gives_one_line(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match=message):
        Slurm(tmp_path, None, "auto", {"cluster": "local", **options})


def test_slurm_settings_become_lines_of_the_batch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr("submitit.slurm.slurm.SlurmExecutor.affinity", lambda *_: 2)
    given = {
        "partition": "gpu",
        "account": "lab",
        "memory_gb": 24,
        "time_limit": "1-00:00:00",
        "slurm_constraint": "a100",
    }
    launcher = Slurm(tmp_path, None, "auto", given)
    text = launcher.executor._executor._make_submission_file_text("run", "id")
    for line in ("time=1440", "partition=gpu", "account=lab", "mem=24GB", "gpus-per-node=1", "cpus-per-task=4",
                 "constraint=a100", "signal=USR2@120"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text


@pytest.mark.slow
def test_ray_on_this_machine(tmp_path: Path, npz: Path) -> None:
    pytest.importorskip("ray")
    values = small(npz, methods=["mixup", "bad=mixup[run.precision=fp16]"], seeds=[0])
    done = mixskd.compare(**values, out=str(tmp_path / "grid"), launcher="ray", progress=False)
    assert list(done.failures) == ["bad-wrn_10_1-seed0"]
    assert [row["method"] for row in done.rows] == ["mixup"]
    search: dict[str, Any] = {"run": {**RUN, "epochs": 1}, "data": {"source": str(npz), "val_holdout": 0.5}}
    found = mixskd.tune(
        **search, backbone="wrn_10_1", method="baseline", methods="baseline", trials=2, out=tmp_path / "search",
        launcher="ray", progress=False,
    )  # fmt: skip
    assert found.model in {tmp_path / "search" / f"trial00{number}-rung1" for number in (1, 2)}


@pytest.mark.parametrize(("launcher", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_missing_package_is_named(
    launcher: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["compare", "--launcher", launcher, "--out", str(tmp_path / "grid")]) == 2
    assert capsys.readouterr().err == f"mixskd: error: this needs {package}: pip install 'mixskd[{launcher}]'\n"
    assert not (tmp_path / "grid").exists()
