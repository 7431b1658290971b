"""Predictions from files: the same alone and in batches, the same as the evaluation's, and in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import mixskd
from mixskd.artifacts.model_file import store_calibration
from mixskd.cli.main import main
from mixskd.deploy.predicting import Predictor
from mixskd.errors import UserError
from tests.deploy.support import CLASSES, photos, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.safetensors")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def by_class(prediction: dict, classes: Sequence[str] = CLASSES) -> np.ndarray:
    found = {c["name"]: c["probability"] for c in prediction["classes"]}
    return np.array([found[name] for name in classes])


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_gives_the_predictions_of_single_images(workers: int, model: Path, images: Path) -> None:
    files = sorted(map(str, images.rglob("*.jpg")), reverse=True)
    together = mixskd.predict(model, files, batch_size=8, workers=workers)
    alone = [mixskd.predict(model, [file], batch_size=1)[0] for file in files]
    assert [p["image"] for p in together] == files
    np.testing.assert_allclose([by_class(p) for p in together], [by_class(p) for p in alone], atol=1e-6)
    assert [p["class"] for p in together] == [p["class"] for p in alone]
    assert len({p["class"] for p in alone}) > 1
    assert all(sum(by_class(p)) == pytest.approx(1) for p in together)


def test_probabilities_are_those_of_the_evaluation(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    file = write_model(tmp_path / "m.safetensors", classes=names)
    predictions = mixskd.predict(file, [photos(tmp_path / "photos", classes=names)])
    truth = [names.index(Path(p["image"]).parent.name) for p in predictions]
    p = np.array([by_class(prediction, names) for prediction in predictions])
    scores = mixskd.evaluate(file, str(tmp_path / "photos"))
    assert scores["images"] == len(predictions) == 21
    assert scores["loss"] == pytest.approx(-np.log(p[np.arange(len(p)), truth]).mean(), rel=1e-5)
    assert scores["top1"] == pytest.approx(100 * (p.argmax(1) == truth).mean())


def test_temperature_and_threshold_are_given_stored_or_neither(model: Path, images: Path) -> None:
    plain = mixskd.predict(model, [images])
    p = np.array([by_class(prediction) for prediction in plain])
    softened = p**0.5 / (p**0.5).sum(1, keepdims=True)
    given = mixskd.predict(model, [images], temperature=2.0, threshold=0.6)
    np.testing.assert_allclose([by_class(prediction) for prediction in given], softened, atol=1e-6)
    unknown = [prediction["class"] == "unknown" for prediction in given]
    assert unknown == (softened.max(1) < 0.6).tolist()
    assert 0 < sum(unknown) < len(unknown)
    before = mixskd.load(model)
    store_calibration(model, 2.0, threshold=0.6)
    assert mixskd.predict(model, [images]) == given
    assert mixskd.predict(model, [images], temperature=1, threshold=0) == plain
    with pytest.raises(UserError, match=r"fitted at the temperature 2; give --threshold"):
        mixskd.predict(model, [images], temperature=1)
    assert mixskd.predict(model, [images], threshold=0)[0]["classes"] == given[0]["classes"]
    after = mixskd.load(model)
    assert (before.temperature, after.temperature, after.threshold) == (None, 2.0, 0.6)


def test_only_predict_uses_the_stored_calibration(tmp_path: Path) -> None:
    file = write_model(tmp_path / "m.safetensors", classes=("a", "b", "c"))
    images = photos(tmp_path / "photos", each=3, classes=("a", "b", "c"))
    scores, logits = mixskd.evaluate(file, str(images)), mixskd.load(file)(torch.ones(1, 3, 72, 72))
    store_calibration(file, 3.0, threshold=0.9)
    assert mixskd.evaluate(file, str(images)) == scores
    assert torch.equal(mixskd.load(file)(torch.ones(1, 3, 72, 72)), logits)


def test_bad_image_is_named_and_the_others_are_predicted(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = images / "bee" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    predictions = mixskd.predict(model, [images, images / "gone.jpg"], batch_size=4)
    assert len(predictions) == 22
    errors = {p["image"]: p["error"] for p in predictions if "error" in p}
    assert list(errors) == [str(bad), str(images / "gone.jpg")]
    assert "--skip-bad-images" not in "".join(errors.values())
    assert main(["predict", str(model), str(images)]) == 1
    said = capsys.readouterr()
    assert said.out.count("\n") == 20
    assert str(bad) in said.err
    assert "skipped 1 of 21 images" in said.err
    good = [p for p in mixskd.predict(model, [images], batch_size=21) if "error" not in p]
    assert [p["class"] for p in good] == [p["class"] for p in predictions if "error" not in p]
    for path in images.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 21 images can be read, the first: cannot read the image"):
        mixskd.predict(model, [images])


def test_the_command_prints_lines_or_json(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = mixskd.predict(model, [images], top=2)
    assert main(["predict", str(model), str(images), "--top", "2", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == expected
    assert said.out == json.dumps(expected) + "\n"
    assert said.err == ""
    assert main(["predict", str(model), str(images / "ant" / "0.jpg"), "--threshold", "1", "--top", "1"]) == 0
    first = expected[[p["image"] for p in expected].index(str(images / "ant" / "0.jpg"))]["classes"][0]
    said = capsys.readouterr()
    assert said.out == f"{images}/ant/0.jpg: unknown ({first['name']} {100 * first['probability']:.1f} %)\n"
    store_calibration(model, 2.0, threshold=0.0)
    assert main(["predict", str(model), str(images / "ant" / "0.jpg")]) == 0
    assert "temperature 2, threshold 0 (what is not given comes from mixskd calibrate)" in capsys.readouterr().err


def test_progress_bar_is_shown_when_predictions_go_to_a_file(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "ant" / "0.jpg").write_bytes(b"")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    moved = []

    class Shown:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Shown:
            return self

        def __exit__(self, *_: object) -> None: ...

        def add_task(self, _: str, total: int) -> int:
            assert total == 21
            return 5

        def advance(self, task: int) -> None:
            moved.append(task)

    monkeypatch.setattr("rich.progress.Progress", Shown)
    argv = ["predict", str(model), str(images), "--out", str(images.parent / "a.csv")]
    assert main(argv) == 1
    assert moved == [5] * 21
    assert "21 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold must be a probability from 0 to 1"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"temperature": float("inf")}, "temperature must be above 0 and finite"),
        ({"workers": -1}, "workers must be from 0 to 1024"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"top": 0}, "top must be above 0"),
        ({"device": "abacus"}, "there is no device"),
    ],
)
def test_predict_rejects_wrong_arguments(options: dict, message: str, model: Path, images: Path) -> None:
    with pytest.raises(UserError, match=message):
        mixskd.predict(model, [images], **options)


def test_weights_that_overflow_are_refused(model: Path, images: Path) -> None:
    predictor = Predictor(model)
    predictor.model.head.weight.data.fill_(float("inf"))
    with pytest.raises(UserError, match=r"for .*0\.jpg are not finite"):
        list(predictor([images]))
