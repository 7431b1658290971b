"""The fitted temperature and threshold against searches of their own, and what is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

import mixskd
from mixskd.cli.main import main
from mixskd.errors import UserError
from mixskd.tasks.thresholds import threshold_for_accuracy, threshold_for_coverage
from mixskd.training.run_lock import run_lock
from tests.bad_inputs import described
from tests.deploy.support import photos, write_model

NAMES = ("a", "b", "c")
SIZE = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs whose classes the classifier gets right more often than not, by its own word: train/ and val/."""
    folder = tmp_path_factory.mktemp("data")
    model = write_model(folder / "m.safetensors", SIZE, NAMES)
    drawn = photos(folder / "drawn", each=20, classes=NAMES)
    called = mixskd.predict(model, [drawn])
    draw = np.random.default_rng(0)
    for i, prediction in enumerate(called):
        p = [next(c["probability"] for c in prediction["classes"] if c["name"] == name) for name in NAMES]
        softened = np.sqrt(p) / np.sqrt(p).sum()
        for split in ("train", "val"):
            target = folder / "data" / split / str(draw.choice(NAMES, p=softened)) / f"{i}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(prediction["image"]).read_bytes())
    return folder / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.safetensors", SIZE, NAMES)


def on_val(model: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities at temperature 1 and labels, from the files."""
    predictions = mixskd.predict(model, [data / "val"], temperature=1, threshold=0)
    p = np.array([[next(c["probability"] for c in q["classes"] if c["name"] == n) for n in NAMES] for q in predictions])
    return np.log(p), np.array([NAMES.index(Path(q["image"]).parent.name) for q in predictions])


def test_temperature_is_optimal_and_reported_numbers_are_right(model: Path, data: Path) -> None:
    fitted = mixskd.calibrate(model, str(data), coverage=60)
    log_p, labels = on_val(model, data)

    def nll(temperature: float) -> float:
        return float(-log_softmax(log_p / temperature, axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize(lambda x: nll(np.exp(x[0])), [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    assert fitted["temperature"] == pytest.approx(np.exp(found.x[0]), rel=1e-4)
    assert fitted["temperature"] > 1.2
    assert fitted["before"]["nll"] == pytest.approx(nll(1), rel=1e-5)
    assert fitted["after"]["nll"] == pytest.approx(found.fun, rel=1e-5)
    assert fitted["after"]["nll"] < fitted["before"]["nll"]
    predictions = mixskd.predict(model, [data / "val"])
    accepted = np.array([p["class"] != "unknown" for p in predictions])
    right = np.array([p["classes"][0]["name"] == Path(p["image"]).parent.name for p in predictions])
    assert fitted["images"] == len(predictions) == 60
    assert fitted["accepted_images"] == accepted.sum() == 36
    assert fitted["accepted"] == pytest.approx(60)
    assert fitted["top1"] == pytest.approx(100 * right.mean())
    assert fitted["accepted_top1"] == pytest.approx(100 * right[accepted].mean())


def test_target_accuracy_is_met_with_the_most_images(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(model), "--data", str(data), "--target-accuracy", "80"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 3
    assert all(word in said for word in ("temperature", "NLL", "ECE", "threshold", "60 images of val"))
    predictions = mixskd.predict(model, [data / "val"])
    confidence = np.array([p["classes"][0]["probability"] for p in predictions])
    right = np.array([p["classes"][0]["name"] == Path(p["image"]).parent.name for p in predictions])
    threshold = mixskd.load(model).threshold
    assert 0 < threshold < 1
    assert right[confidence >= threshold].mean() >= 0.8
    lower = [t for t in confidence if t < threshold]
    assert lower
    assert all(right[confidence >= t].mean() < 0.8 for t in lower)


def brute(confidence: np.ndarray, right: np.ndarray, target: float) -> int | None:
    """The most images that a threshold accepts with that accuracy."""
    counts = [int((confidence >= t).sum()) for t in confidence if 100 * right[confidence >= t].mean() >= target - 1e-9]
    return max(counts, default=None)


@pytest.mark.parametrize("seed", range(20))
def test_threshold_matches_an_exhaustive_search(seed: int) -> None:
    draw = np.random.default_rng(seed)
    confidence = draw.integers(30, 100, 40) / 100 if seed % 2 else draw.random(40)
    right = draw.random(40) < confidence
    for target in (50, 75, 90, 100):
        most = brute(confidence, right, target)
        if most is None:
            with pytest.raises(UserError, match="no threshold reaches"):
                threshold_for_accuracy(torch.tensor(confidence), torch.tensor(right), target)
            continue
        threshold = threshold_for_accuracy(torch.tensor(confidence), torch.tensor(right), target)
        assert (confidence >= threshold).sum() == most
        assert threshold not in confidence
    for coverage in (2, 10, 50, 97.5, 100):
        accepted = (confidence >= threshold_for_coverage(torch.tensor(confidence), coverage)).mean()
        higher = [share for t in confidence if (share := (confidence >= t).mean()) >= coverage / 100 - 1e-12]
        assert accepted == min(higher)


def test_threshold_between_adjacent_floats() -> None:
    confidence = torch.tensor([0.5, np.nextafter(0.5, 0)], dtype=torch.float64)
    threshold = threshold_for_accuracy(confidence, torch.tensor([True, False]), 100)
    assert (confidence >= threshold).tolist() == [True, False]


def relabelled(folder: Path, model: Path, data: Path, shift: int) -> Path:
    """``data`` with each image of val in the class ``shift`` places after the one that the classifier names."""
    for prediction in mixskd.predict(model, [data / "val"]):
        name = NAMES[(NAMES.index(prediction["class"]) + shift) % len(NAMES)]
        target = folder / "val" / name / Path(prediction["image"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(prediction["image"])
    (folder / "train").symlink_to(data / "train")
    return folder


def test_without_mistakes_the_temperature_stays_1(model: Path, data: Path, tmp_path: Path) -> None:
    fitted = mixskd.calibrate(model, str(relabelled(tmp_path / "right", model, data, 0)))
    assert (fitted["temperature"], fitted["threshold"], fitted["accepted_top1"]) == (1, 0, 100)


def test_unreachable_target_changes_nothing(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    wrong = relabelled(tmp_path / "wrong", model, data, 1)
    assert main(["calibrate", str(model), "--data", str(wrong)]) == 2
    assert "no threshold reaches an accuracy of 95 % on val; the highest that one reaches is 0.00 %" in (
        capsys.readouterr().err
    )
    argv = ["calibrate", str(model), "--data", str(data), "--target-accuracy"]
    for value, message in (("0.95", "in per cent"), ("101", "in per cent"), ("nan", "in per cent"), ("x", "invalid")):
        assert main([*argv, value]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="not both"):
        mixskd.calibrate(model, str(data), target_accuracy=90, coverage=90)
    assert model.read_bytes() == before


def test_missing_val_gives_one_line_of_error(model: Path, data: Path, tmp_path: Path, npz: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train").symlink_to(data / "train")
    for source in (tmp_path / "photos", data / "train", npz):
        classes = "abc" if source == npz else NAMES
        file = write_model(tmp_path / "other.safetensors", 8 if source == npz else SIZE, classes)
        with pytest.raises(UserError, match="has no validation split to fit on"):
            mixskd.calibrate(file, str(source))
    with pytest.raises(UserError, match="does not say which data"):
        mixskd.calibrate(model)


def test_run_is_calibrated_on_its_own_val_split(tmp_path: Path, npz: Path) -> None:
    run = tmp_path / "run"
    mixskd.train(
        data={"source": str(npz), "val_holdout": 0.5}, backbone="wrn_10_1", method="baseline", out=str(run),
        run={"epochs": 1, "batch_size": 3, "progress": False, "precision": "fp32"},
    )  # fmt: skip
    scores = mixskd.evaluate(run, split="val")
    before = described(run / "model.safetensors")
    fitted = mixskd.calibrate(run, coverage=50)
    assert (fitted["images"], fitted["before"]["nll"]) == (6, pytest.approx(scores["loss"], rel=1e-5))
    about = described(run / "model.safetensors")
    assert (about["temperature"], about["threshold"]) == (fitted["temperature"], fitted["threshold"])
    changed = {"temperature", "threshold", "digest"}
    assert {k: v for k, v in about.items() if k not in changed} == {k: v for k, v in before.items() if k != "digest"}
    assert mixskd.evaluate(run, split="val") == scores
    with run_lock(run), pytest.raises(UserError, match="another process is using the run"):
        mixskd.calibrate(run)
