"""A classifier of several labels an image, from training to predictions, exports, suites and reports."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, f1_score

import mixskd
from mixskd import UserError
from mixskd.artifacts.model_file import load_model
from mixskd.cli.main import main
from mixskd.deploy.exporting import export
from mixskd.deploy.exports.formats import Options
from mixskd.reporting.page.report import write_report
from tests.interruption import StopsAt

CLASSES = ("cat", "dog", "owl")


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 px whose quarters are bright where they have the label."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, 3)) < (0.5, 0.4, 0.3)).astype(np.int64)
    images = generator.integers(0, 90, (count, 8, 8, 3))
    for n, (y, x) in enumerate(((0, 0), (0, 4), (4, 0))):
        images[:, y : y + 4, x : x + 4] += 150 * labels[:, n, None, None, None]
    return images.astype(np.uint8), labels


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def write(path: Path, **changes: np.ndarray | None) -> Path:
    """The data as an ``.npz``; None leaves an array out."""
    arrays: dict[str, Any] = {"classes": np.array(CLASSES)}
    for seed, (split, count) in enumerate({"train": 24, "val": 20, "test": 20}.items()):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = labelled(count, seed)
    np.savez(path, **{name: x for name, x in {**arrays, **changes}.items() if x is not None})
    return path


def indices() -> dict[str, np.ndarray]:
    """One class an image as the labels of each split."""
    counts = {"train": 24, "val": 20, "test": 20}
    return {f"{split}_labels": labelled(n, seed)[1].argmax(1) for seed, (split, n) in enumerate(counts.items())}


def settings(data: Path, out: Path, method: str = "mixskd", **optim: Any) -> dict[str, Any]:
    return {
        "data": str(data), "backbone": "wrn_10_1", "method": method, "out": str(out),
        "optim": {"lr": 0.05, "warmup_epochs": 0, "schedule": "cosine", **optim},
        "run": {"epochs": 2, "batch_size": 8, "progress": False, "precision": "fp32", "checkpoint_every_steps": 2},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    weighted = {"class_weights": "balanced", "asymmetric": (1, 0, 0.05), "logit_adjustment": 0.5}
    mixskd.train(**settings(write(folder / "data.npz"), folder / "run", **weighted))
    return folder / "run"


def probabilities(run: Path, images: np.ndarray) -> np.ndarray:
    model = load_model(run)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (model.mean, model.std))
    with torch.inference_mode():
        return model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).double().sigmoid().numpy()


def test_scores_of_the_summary_are_those_of_scikit_learn(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "multilabel"
    assert summary["deployed"]["selected_on"] == "val"
    thresholds = np.array(load_model(run).thresholds)
    for split, seed in (("val", 1), ("test", 2)):
        images, labels = labelled(20, seed)
        p, scores = probabilities(run, images), summary["scores"][split]
        assert scores["map"] / 100 == pytest.approx(average_precision_score(labels, p), abs=1e-6)
        assert scores["f1"] / 100 == pytest.approx(f1_score(labels, p >= thresholds, average="micro"), abs=1e-6)
    found = mixskd.evaluate(run)
    assert found["task"] == "multilabel"
    assert {name: found[name] for name in ("map", "f1", "f1_macro")} == pytest.approx(
        {name: summary["scores"]["test"][name] for name in ("map", "f1", "f1_macro")}, rel=1e-5
    )


@pytest.mark.parametrize("method", ["mixskd", "label_smoothing"])
def test_killed_run_resumes_to_the_bit(method: str, tmp_path: Path) -> None:
    data = write(tmp_path / "data.npz")
    weighted = {"class_weights": "effective", "logit_adjustment": 1}
    mixskd.train(**settings(data, tmp_path / "whole", method, **weighted))
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(**settings(data, tmp_path / "cut", method, **weighted), listeners=[StopsAt(5)])
    mixskd.train(**settings(data, tmp_path / "cut", method, **weighted), resume=True)
    for name in ("metrics.csv", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    images, _ = labelled(20, 2)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))


def test_predictions_have_a_probability_a_class_and_labels_at_thresholds(run: Path, files: list[str]) -> None:
    expected, thresholds = probabilities(run, labelled(20, 2)[0]), load_model(run).thresholds
    predictions = mixskd.predict(run, files, top=1)
    for prediction, p in zip(predictions, expected, strict=True):
        found = {entry["name"]: entry["probability"] for entry in prediction["classes"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], p, atol=1e-6)
        named = [name for name, threshold in zip(CLASSES, thresholds, strict=True) if found[name] >= threshold]
        assert prediction["labels"] == named
        assert "class" not in prediction
    assert [p["labels"] for p in mixskd.predict(run, files, threshold=0.0)] == [list(CLASSES)] * 20
    softened = mixskd.predict(run, files, temperature=2.0)  # the same labels at other probabilities
    assert [p["labels"] for p in softened] == [p["labels"] for p in predictions]
    assert softened[0]["classes"] != predictions[0]["classes"]


def test_calibration_fits_a_temperature_and_thresholds(
    run: Path, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with pytest.raises(UserError, match="a coverage are for one label an image; leave them out"):
        mixskd.calibrate(copy, coverage=90)
    before, fitted = mixskd.evaluate(copy, split="val"), mixskd.calibrate(copy)
    images, labels = labelled(20, 1)
    z = logit(probabilities(run, images))

    def nll(t: float) -> float:
        p = expit(z / t)
        return float(-np.log(np.where(labels > 0, p, 1 - p)).sum(1).mean())

    best = minimize_scalar(nll, bounds=(0.02, 50), method="bounded", options={"xatol": 1e-9})
    assert fitted["temperature"] == pytest.approx(best.x, rel=1e-3)
    assert (fitted["before"]["nll"], fitted["after"]["nll"]) == pytest.approx((nll(1), best.fun), rel=1e-5)
    p = expit(z / fitted["temperature"])
    gaps = [abs(sum((p[:, n] - labels[:, n])[(15 * p[:, n]).astype(int) == b])) for n in range(3) for b in range(15)]
    assert fitted["after"]["ece"] == pytest.approx(100 * sum(gaps) / labels.size, rel=1e-4)
    named = p >= np.array([fitted["thresholds"][name] for name in CLASSES])
    assert fitted["after"]["f1_macro"] == pytest.approx(100 * f1_score(labels, named, average="macro"))
    assert mixskd.evaluate(copy, split="val") == before  # those of the training were fitted on the same images
    predictions, after = (mixskd.predict(place, files) for place in (run, copy))
    assert [q["labels"] for q in predictions] == [q["labels"] for q in after]
    assert max(c["probability"] for c in after[0]["classes"]) == pytest.approx(
        expit(logit(max(c["probability"] for c in predictions[0]["classes"])) / fitted["temperature"])
    )
    assert main(["calibrate", str(copy)]) == 0
    assert "thresholds of 3 classes: F1" in capsys.readouterr().out
    mixskd.push(copy, to_folder=tmp_path / "hub")
    about = json.loads((tmp_path / "hub" / "preprocess.json").read_text())
    assert about["thresholds"] == pytest.approx(list(fitted["thresholds"].values()))
    assert f"cat (threshold {fitted['thresholds']['cat']:.4g})" in (tmp_path / "hub" / "README.md").read_text()


def test_csv_has_a_column_a_class(run: Path, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    written = mixskd.predict(run, [*files, str(tmp_path / "bad.png")], out=tmp_path / "p.csv")
    assert written["skipped"] == 1
    *rows, bad = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == ["image", "labels", *CLASSES, "error"]
    p = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(p, probabilities(run, labelled(20, 2)[0]), atol=1e-6)
    assert rows[0]["labels"] == ";".join(mixskd.predict(run, files[:1])[0]["labels"])
    assert bad["cat"] == ""


@pytest.mark.long
def test_graphs_give_the_same_probabilities_and_hold_the_thresholds(run: Path, tmp_path: Path) -> None:
    images, _ = labelled(20, 2)
    expected, pixels = probabilities(run, images), np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    options = Options("uint8", softmax=True)
    file = export(run, "onnx", tmp_path / "m.onnx", options=options).file
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": pixels})[0], expected, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["description"])
    assert (about["task"], about["thresholds"]) == ("multilabel", list(load_model(run).thresholds))
    program = torch.export.load(export(run, "pt2", tmp_path / "m.pt2", options=options).file).module()
    with torch.inference_mode():
        np.testing.assert_allclose(program(torch.from_numpy(pixels)).numpy(), expected, atol=1e-5)


def test_suites_report_and_refusals(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (accuracy,) = mixskd.run_suites([run], "all")["run"].values()
    images, labels = labelled(20, 2)
    p = probabilities(run, images)
    for n, one in enumerate(accuracy["classes"]):
        assert one["ap"] == pytest.approx(100 * average_precision_score(labels[:, n], p[:, n]), abs=1e-4)
        assert one["f1"] == pytest.approx(100 * f1_score(labels[:, n], p[:, n] >= one["threshold"]), abs=1e-4)
    with pytest.raises(UserError, match="suite fgsm is for one label an image, but run names several; use accuracy"):
        mixskd.run_suites([run], "accuracy,fgsm")
    text = write_report([run], tmp_path / "report.html").read_text()
    assert "Multilabel" in text
    assert "mAP (%)" in text
    mixskd.push(run, to_folder=tmp_path / "hub")
    assert "mAP (%)" in (tmp_path / "hub" / "README.md").read_text()
    assert json.loads((tmp_path / "hub" / "preprocess.json").read_text())["task"] == "multilabel"
    assert main(["compare", "--table", str(run.parent)]) == 0
    assert "mAP (%)" in capsys.readouterr().out
    with pytest.raises(UserError, match="one label an image, but the classifier was trained for several"):
        mixskd.evaluate(run, write(tmp_path / "one.npz", **indices()))


REFUSED = {
    "a method of one label": (
        {"method": "cskd"},
        "this method is for one label an image; with several, train with base",
    ),
    "heads": ({"run": {"all_heads": True}}, "run.all_heads is for one label an image, but the data have several"),
    "draws by class": ({"data": {"balance": 0.5}}, "data.balance draws by class, but an image may have several"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_for_one_label_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    (changes, says), values = REFUSED[name], settings(write(tmp_path / "data.npz"), tmp_path / "run")
    for key, value in changes.items():
        if key == "data":
            value = {"source": values["data"], **value}
        values[key] = {**values[key], **value} if key == "run" else value
    with pytest.raises(UserError, match=says):
        mixskd.train(**values)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"methods": "baseline,cskd"}, "cskd is for one label an image; with several, train with baseline"),
        ({"methods": "baseline", "suites": "fgsm"}, "the suites are for one label an image, but .* has several"),
    ],
)
def test_comparison_refuses_what_is_for_one_label_before_training(
    grid: dict[str, Any], says: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "data.npz")
    with pytest.raises(UserError, match=says):
        mixskd.compare(data=str(data), backbones="wrn_10_1", out=tmp_path / "c", **grid)
    assert not (tmp_path / "c").exists()


def test_teacher_must_name_as_many_labels(run: Path, tmp_path: Path) -> None:
    values = settings(run.parent / "data.npz", tmp_path / "run")
    taught = mixskd.train(**{**values, "method": {"name": "kd", "teacher": str(run)}})
    assert taught["scores"]["test"]["map"] > 0
    write(tmp_path / "one.npz", **indices())
    values = settings(tmp_path / "one.npz", tmp_path / "other")
    with pytest.raises(UserError, match=r"the data have one label an image, but the teacher .* for several"):
        mixskd.train(**{**values, "method": {"name": "kd", "teacher": str(run)}})


def test_without_val_thresholds_stay_as_a_note_says(tmp_path: Path) -> None:
    data = write(tmp_path / "data.npz", val_images=None, val_labels=None)
    summary = mixskd.train(**settings(data, tmp_path / "run", "baseline"))
    assert any("without a val split the thresholds of all classes stay 0.5" in note for note in summary["notes"])
    assert load_model(tmp_path / "run").thresholds == (0.5,) * 3


def test_probabilities_as_labels_train_one_label_an_image(tmp_path: Path) -> None:
    images, several = labelled(24, 0)
    soft = (several + 0.1) / (several + 0.1).sum(1, keepdims=True)
    hard = {name: labels for name, labels in indices().items() if name != "train_labels"}
    data = write(tmp_path / "data.npz", train_labels=soft.astype(np.float32), **hard)
    summary = mixskd.train(**settings(data, tmp_path / "run", "mixup", class_weights="balanced"))
    assert summary["scores"]["test"].keys() == {"top1", "top5", "loss"}
    eye = write(tmp_path / "eye.npz", train_labels=np.eye(3)[several.argmax(1)], **hard)
    index = write(tmp_path / "index.npz", train_labels=several.argmax(1), **hard)
    for name, source in (("eye", eye), ("index", index)):
        mixskd.train(**settings(source, tmp_path / name, "baseline"))
    eye, index = ([float(row["train_loss"]) for row in rows_of(tmp_path / n / "metrics.csv")] for n in ("eye", "index"))
    assert eye == pytest.approx(index, rel=1e-5)
    with pytest.raises(UserError, match="needs one class an image as its label, but the data have probabilities"):
        mixskd.train(**settings(data, tmp_path / "ols", "ols"))
