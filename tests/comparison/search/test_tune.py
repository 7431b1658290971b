"""Searches carried out: their files, their continuation, failing trials, folds, and two processes with a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mixskd
from mixskd.artifacts.results import read_result
from mixskd.cli.main import main
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.search.study import INSIDE
from mixskd.comparison.worker import settings_file
from mixskd.config import read_yaml
from mixskd.config.build import read_experiment
from mixskd.errors import UserError
from mixskd.runtime.files import locked
from tests.processes import SECONDS
from tests.processes import mixskd as mixskd_command

optuna = pytest.importorskip("optuna")

SPACE = {"methods": ["baseline", "mixup"], "optim.lr": {"low": 0.01, "high": 0.2, "log": True}}
TINY: dict[str, Any] = {
    "data": {"source": "digits", "per_class": 4}, "run": {"epochs": 2, "batch_size": 20, "precision": "fp32"},
    "method": "baseline", "jobs": 1, "devices": "cpu", "progress": False,
}  # fmt: skip


class Scripted:
    """A launcher whose runs end at once: ``score`` gives top-1 by settings, or a line of failure."""

    def __init__(self, score: Callable[[dict[str, Any]], float | str], slots: int = 1) -> None:
        self.score, self.slots = score, slots
        self.submitted: list[str] = []

    def submit(self, folder: Path, name: str) -> Future[int]:
        self.submitted.append(name)
        values = read_yaml(settings_file(folder, name))
        found, future = self.score(values), Future[int]()
        run, log = folder / name, folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True, parents=True)
        if isinstance(found, str):
            log.write_text(f"mixskd: error: {found}\n")
            future.set_result(2)
            return future
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump(values))
        scores = {"top1": found}
        summary = {
            "scores": {"val": scores}, "best": {"epoch": 1, "split": "val", **scores}, "updates": 1, "images": 1,
            "images_per_second": 1, "seconds": 1.0, "threads": 1, "device": "none", "precision": "fp32", "classes": 10,
        }  # fmt: skip
        (run / "summary.json").write_text(json.dumps(summary))
        future.set_result(0)
        return future

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    monkeypatch.setattr("mixskd.comparison.scheduler.PAUSE", 0.0)
    monkeypatch.setattr("os.fsync", lambda _: None)  # each entry of the journal is synced
    monkeypatch.setattr("mixskd.comparison.search.tune.scores_on_test", lambda folders: {"top1": 50.0, "each": []})

    def use(score: Callable[[dict[str, Any]], float | str]) -> Scripted:
        launcher = Scripted(score)
        monkeypatch.setitem(LAUNCHERS, "local", lambda *_: launcher)
        return launcher

    return use


def rate_matters(values: dict[str, Any]) -> float:
    """The best rate is 0.05; longer runs are a little better."""
    return float(90 - 200 * abs(values["optim"]["lr"] - 0.05) + min(values["run"]["epochs"], 40) / 100)


LONG = {**TINY, "run": {**TINY["run"], "epochs": 18}, "space": SPACE}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def test_search_promotes_strong_trials_and_ends_weak_ones(tmp_path: Path, scripted: Any) -> None:
    launcher = scripted(rate_matters)
    found = mixskd.tune(**LONG, trials=12, out=tmp_path / "s")
    runs = Counter(name.split("-")[1] for name in launcher.submitted)
    assert runs["rung1"] == 12
    assert 12 > runs["rung2"] > runs["rung3"] >= 1
    assert launcher.submitted[:3] == ["trial001-rung1", "trial001-rung2", "trial001-rung3"]
    table = rows(tmp_path / "s")
    assert len(table) == 12
    assert table[0]["rung"] == "3 of 3"
    best = read_experiment(found.best)  # type: ignore[arg-type]
    assert abs(best.optim.lr - 0.05) <= abs(0.1 - 0.05)  # never worse than the recipe
    assert best.run.score_test
    assert "test top-1 50.00 %, which chose nothing" in found.line
    search = json.loads((tmp_path / "s" / "search.json").read_text())
    assert len(search["trials"]) == 12
    assert set(search["importance"]) <= {"method", "optim.lr"}
    assert search["importance"]["optim.lr"] > search["importance"]["method"]


def test_leaderboard_is_written_after_each_trial(tmp_path: Path, scripted: Any) -> None:
    ended: list[int] = []

    def score(values: dict[str, Any]) -> float:
        known = rows(tmp_path / "s") if (tmp_path / "s" / "leaderboard.csv").exists() else []
        ended.append(sum(row["ended"] != "not yet" for row in known))
        return rate_matters(values)

    scripted(score)
    mixskd.tune(**LONG, trials=3, out=tmp_path / "s")
    assert ended[:4] == [0, 0, 0, 1]  # the recipe climbs three rungs
    assert ended[-1] == 2


def test_same_seed_proposes_the_same_trials(tmp_path: Path, scripted: Any) -> None:
    scripted(rate_matters)
    tables = []
    for name in ("a", "b"):
        mixskd.tune(**LONG, trials=6, out=tmp_path / name)
        tables.append([{k: v for k, v in row.items() if k != "hours"} for row in rows(tmp_path / name)])
    assert tables[0] == tables[1]


def test_more_trials_continue_the_search_and_no_run_is_repeated(tmp_path: Path, scripted: Any) -> None:
    launcher = scripted(rate_matters)
    mixskd.tune(**LONG, trials=3, out=tmp_path / "s")
    mixskd.tune(**LONG, trials=5, out=tmp_path / "s")
    assert max(Counter(launcher.submitted).values()) == 1
    assert len(rows(tmp_path / "s")) == 5
    before = len(launcher.submitted)
    mixskd.tune(**LONG, trials=5, out=tmp_path / "s")
    assert len(launcher.submitted) == before


def test_operations_are_not_exceeded(tmp_path: Path, scripted: Any) -> None:
    scripted(rate_matters)
    mixskd.tune(**LONG, trials=2, out=tmp_path / "measure")
    one = json.loads((tmp_path / "measure" / "search.json").read_text())["operations"][-1]
    mixskd.tune(**LONG, operations=5 * one, out=tmp_path / "s")
    search = json.loads((tmp_path / "s" / "search.json").read_text())
    assert search["operations"][-1] == pytest.approx(one)
    assert 4 * one < sum(trial["operations"] for trial in search["trials"]) <= 5 * one


def test_small_budget_shortens_the_last_rung(tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted(rate_matters)
    mixskd.tune(**{**LONG, "progress": True}, operations=1e9, out=tmp_path / "s")
    assert "the budget does not pay for trials of 18 epochs of the recipe; the last rung has" in capsys.readouterr().err


def test_hours_begin_with_a_measurement_and_end_in_time(tmp_path: Path, scripted: Any) -> None:
    launcher = scripted(rate_matters)
    mixskd.tune(**LONG, hours=1e-9, out=tmp_path / "s")
    assert launcher.submitted[0] == "speed"
    assert {name.split("-")[0] for name in launcher.submitted[1:]} == {"trial001"}  # the recipe, whatever the time


def test_failed_trial_is_pruned_with_its_line(
    tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(lambda v: "the loss term 'loss' became NaN" if v["method"]["name"] == "mixup" else rate_matters(v))
    mixskd.tune(**{**LONG, "progress": True}, trials=6, out=tmp_path / "s")
    assert "stopped: the loss term 'loss' became NaN (exit code 2" in capsys.readouterr().err
    table = rows(tmp_path / "s")
    assert len(table) == 6
    failed = [row for row in table if row["method"] == "mixup"]
    assert failed
    assert all("NaN" in row["ended"] and row["rung"] == "0 of 3" for row in failed)


def test_last_rung_is_repeated_over_folds(tmp_path: Path, scripted: Any) -> None:
    folds = iter(range(1000))
    launcher = scripted(lambda values: 50.0 + next(folds) % 2)
    mixskd.tune(**LONG, trials=1, folds=2, out=tmp_path / "s")
    assert launcher.submitted == [
        "trial001-rung1", "trial001-rung2", "trial001-rung3-fold0", "trial001-rung3-fold1",
    ]  # fmt: skip
    (row,) = rows(tmp_path / "s")
    assert (row["val top-1 (%)"], float(row["deviation over folds"])) == ("50.5", pytest.approx(0.5**0.5))


def test_trial_left_by_a_killed_process_is_continued_once(tmp_path: Path, scripted: Any) -> None:
    """At each moment between two entries of the journal, as if the process were killed there."""
    launcher = scripted(rate_matters)
    mixskd.tune(**LONG, trials=2, out=tmp_path / "whole")
    journal = (tmp_path / "whole" / INSIDE / "journal.log").read_bytes().splitlines(keepends=True)
    for entries in range(1, len(journal), 5):
        folder = tmp_path / f"killed{entries}"
        (folder / INSIDE).mkdir(parents=True)
        (folder / INSIDE / "journal.log").write_bytes(b"".join(journal[:entries]))
        (folder / "search.yaml").write_bytes((tmp_path / "whole" / "search.yaml").read_bytes())
        launcher.submitted.clear()
        mixskd.tune(**LONG, trials=2, out=folder)
        assert max(Counter(launcher.submitted).values(), default=1) == 1
        table = rows(folder)
        assert sorted(row["trial"] for row in table) == ["1", "2"], entries
        assert {row["ended"] for row in table} <= {"last rung", "weak"}, entries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials must be above 0"),
        ({"hours": -1.0}, "--hours must be above 0"),
        ({"folds": 1}, "--folds must be 2 or more"),
        ({"jobs": 0}, "--jobs must be 1 or more"),
        ({"launcher": "slrum"}, "did you mean 'slurm'"),
        ({"space": {"optim.lr": {"low": 1, "high": 1}}}, "an empty range"),
        ({"methods": ["tfkd_self"]}, "learns from a trained baseline"),
    ],
)
def test_mistake_gives_one_line_before_training(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mixskd.tune(**{**TINY, **options}, out=tmp_path / "s")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path, scripted: Any) -> None:
    scripted(rate_matters)
    mixskd.tune(**LONG, trials=1, out=tmp_path / "s")
    with pytest.raises(UserError, match="a search with another base"):
        mixskd.tune(**{**LONG, "optim": {"momentum": 0.5}}, trials=1, out=tmp_path / "s")
    with pytest.raises(UserError, match="a search with another space"):
        mixskd.tune(**{**LONG, "space": {"optim.lr": [0.1]}}, trials=1, out=tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="belong to no search"):
        mixskd.tune(**LONG, trials=1, out=tmp_path / "other")


def test_missing_optuna_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "--out", str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err == "mixskd: error: this needs optuna: pip install 'mixskd[tune]'\n"


ARGV = [
    "tune", "--data.per_class", "4", "--backbone", "wrn_10_1", "--method", "baseline", "--methods", "baseline,mixup",
    "--epochs", "2", "--batch-size", "20", "--run.precision", "fp32", "--jobs", "1", "--devices", "cpu",
]  # fmt: skip


class Training(Scripted):
    """A launcher that trains each run at once, in this process."""

    def submit(self, folder: Path, name: str) -> Future[int]:
        self.submitted.append(name)
        mixskd.train(**read_yaml(settings_file(folder, name)))
        future = Future[int]()
        future.set_result(0)
        return future


def test_several_labels_are_ranked_by_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    arrays = {f"{split}_images": draw.integers(0, 255, (12, 8, 8, 3), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": draw.integers(0, 2, (12, 3)) for split in ("train", "val", "test")}
    np.savez(tmp_path / "data.npz", **arrays)
    run = {"epochs": 1, "batch_size": 6, "precision": "fp32", "progress": False}
    tiny: dict[str, Any] = {
        "data": str(tmp_path / "data.npz"),
        "backbone": "wrn_10_1",
        "method": "baseline",
        "run": run,
    }
    with pytest.raises(UserError, match="cskd is for one label an image; with several, train with baseline"):
        mixskd.tune(**tiny, methods="baseline,cskd", trials=2, out=tmp_path / "s")
    launcher = Training(lambda _: 0)
    monkeypatch.setitem(LAUNCHERS, "local", lambda *_: launcher)
    found = mixskd.tune(**tiny, methods="baseline,mixup", trials=2, refit=True, out=tmp_path / "s")
    assert launcher.submitted == ["trial001-rung1", "trial002-rung1", "refit"]
    table = rows(tmp_path / "s")
    scores = [
        read_result(tmp_path / "s" / f"trial{row['trial']:0>3}-rung1").summary["scores"]["val"]["map"] for row in table
    ]
    assert [float(row["val mAP (%)"]) for row in table] == pytest.approx(sorted(scores, reverse=True), abs=0.006)
    tested = mixskd.evaluate(tmp_path / "s" / f"trial{table[0]['trial']:0>3}-rung1", split="test")["map"]
    assert f"test mAP {tested:.2f} %, which chose nothing" in found.line
    assert "trial 2: " in capsys.readouterr().err


@pytest.mark.long
def test_search_trains_real_runs_and_best_yaml_repeats_the_winner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    assert main([*ARGV, "--trials", "2", "--space", "space.yaml", "--refit", "--out", "s"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("winner: trial ")
    assert "model: s/refit/model.safetensors" in output.out
    for run in (tmp_path / "s").glob("trial*"):
        assert "test" not in json.loads((run / "summary.json").read_text())["scores"]
    refit = json.loads((tmp_path / "s" / "refit" / "summary.json").read_text())
    assert set(refit["scores"]) == {"test"}
    assert main(["train", "--config", "s/best.yaml", "--out", "again"]) == 0
    again = json.loads((tmp_path / "again" / "summary.json").read_text())["scores"]
    assert f"{again['val']['top1']:.2f} %" in output.out
    assert f"test top-1 {again['test']['top1']:.2f} %" in output.out


@pytest.mark.long
def test_two_processes_share_a_search_past_a_kill(tmp_path: Path) -> None:
    out = tmp_path / "s"
    argv = [*ARGV, "--trials", "3", "--out", str(out)]
    first, second = (mixskd_command(tmp_path / f"log{i}", *argv) for i in (1, 2))
    deadline = time.monotonic() + SECONDS
    while len(list(out.glob("trial*/config.yaml"))) < 2:  # both are at work
        assert time.monotonic() < deadline
        assert None in (first.code, second.code), first.said + second.said
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second.succeed()
    table = rows(out)
    assert sorted(int(row["trial"]) for row in table) == [1, 2, 3]
    assert not [row for row in table if row["ended"] == "not yet"]
    assert len(list(out.glob("trial*-rung1/summary.json"))) == 3
    for lock in (out / INSIDE).glob("trial*.lock"):
        with locked(lock, wait=False) as free:
            assert free
