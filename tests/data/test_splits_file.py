"""splits.csv decides which images a run is scored on: a changed one is one line, for evaluate and for --resume."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import mixskd
from mixskd.artifacts.model_file import load_model
from mixskd.data import DataBundle
from mixskd.data.splits_file import division_digest
from mixskd.errors import UserError
from mixskd.evaluation.split_scores import evaluation_data
from mixskd.training import trainer

SETTINGS: dict[str, Any] = {
    "data": {"source": "digits", "per_class": 3, "holdout": 0.05}, "backbone": "wrn_10_1", "method": "baseline",
    "run": {"epochs": 1, "batch_size": 30, "progress": False, "precision": "fp32", "device": "cpu"},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("splits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        calls: list[DataBundle] = []
        patch.setattr(trainer, "division_digest", lambda data: calls.append(data) or division_digest(data))
        mixskd.train(out=str(run), **SETTINGS)
    assert len(calls) == 1, "not at each checkpoint: it reads the name of every image"
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    for path in trained.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def scored(run: Path) -> list[int]:
    return evaluation_data(run, load_model(run), None)[0].test.places.tolist()


def refuses(run: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        scored(run)
    assert "\n" not in str(caught.value)


def changed(content: bytes) -> dict[str, bytes]:
    lines = content.splitlines(keepends=True)
    return {
        "renamed": content.replace(b"test,", b"val,").replace(b"train,", b"test,"),
        "repeated": content + lines[-1],
        "truncated": b"".join(lines[:-1]),
        "empty": b"",
        "header only": lines[0],
        "swapped": b"".join([lines[0], *lines[:0:-1]]),
        "NUL": content + b"\0",
        "bytes": b"\xff" + content,
    }


@pytest.mark.parametrize("name", changed(b"a,b\n"))
def test_changed_splits_are_refused(name: str, run: Path) -> None:
    path = run / "splits.csv"
    path.write_bytes(changed(path.read_bytes())[name])
    refuses(run, "splits.csv, which lists the images of each split, is damaged")
    with pytest.raises(UserError, match=r"splits\.csv is damaged: it has other splits than the run"):
        mixskd.train(out=str(run), resume=True, **SETTINGS)


def test_every_single_bit_of_splits_is_refused(run: Path) -> None:
    path, chance = run / "splits.csv", random.Random(0)
    content = path.read_bytes()
    for bit in chance.sample(range(8 * len(content)), 40):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refuses(run, "is damaged")


def test_missing_splits_are_refused_and_written_again_by_resume(run: Path) -> None:
    path, places = run / "splits.csv", scored(run)
    content = path.read_bytes()
    path.unlink()
    refuses(run, "splits.csv, which lists the images of each split, is missing")
    mixskd.train(out=str(run), resume=True, **SETTINGS)
    assert path.read_bytes() == content
    assert scored(run) == places


def test_splits_that_are_a_folder_are_refused(run: Path) -> None:
    (run / "splits.csv").unlink()
    (run / "splits.csv").mkdir()
    refuses(run, "cannot read .*splits.csv: is a directory")


def test_splits_of_another_run_are_refused(run: Path) -> None:
    mixskd.train(out=str(run / "other"), **{**SETTINGS, "data": {**SETTINGS["data"], "split_seed": 1}})
    (run / "splits.csv").write_bytes((run / "other" / "splits.csv").read_bytes())
    refuses(run, "is damaged")


def older(run: Path) -> None:
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    del summary["digest"], summary["splits_digest"]
    path.write_text(json.dumps({**summary, "format": "mixskd-summary-2"}))


def test_splits_of_an_older_run_are_read_with_a_note(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    places = scored(run)
    assert not caplog.records
    older(run)
    assert scored(run) == places
    assert "used without its digest, because summary.json is of an earlier version" in caplog.text


@pytest.mark.parametrize("name", ["renamed", "repeated", "truncated", "empty", "header only", "NUL", "bytes"])
def test_changed_splits_of_an_older_run_are_refused(name: str, run: Path) -> None:
    older(run)
    path = run / "splits.csv"
    path.write_bytes(changed(path.read_bytes())[name])
    refuses(run, "splits.csv")


def test_any_changed_digit_of_a_summary_is_refused(run: Path) -> None:
    path, chance = run / "summary.json", random.Random(0)
    content = path.read_text()
    digits = [place for place, character in enumerate(content) if character.isdigit()]
    for place in chance.sample(digits, 40):
        path.write_text(content[:place] + str((int(content[place]) + 1) % 10) + content[place + 1 :])
        refuses(run, r"summary\.json is not the summary of a run")
    path.write_text(content.replace('"digest"', '"digesu"'))
    refuses(run, "its digest differs")
