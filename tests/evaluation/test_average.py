"""``mixskd average``: float64 means of probabilities and weights, every verb on the result, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

import mixskd
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone, check_local
from mixskd.backbones.ensemble import MOST, mean_of_probabilities
from mixskd.cli.main import main
from mixskd.errors import UserError
from tests.deploy.photo_run import CLASSES, photos, predicted, tiny_is_known, write_photos


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_is_known():
        yield


def train(at: Path, name: str, method: Any = "baseline", backbone: str = "tiny") -> Path:
    mixskd.train(
        data={"source": str(at / "photos"), "image_size": 72, "workers": 0}, backbone=backbone, method=method,
        out=str(at / name), run={"epochs": 1, "batch_size": 6, "progress": False},
    )  # fmt: skip
    return at / name


def like(run: Path, name: str, *, weights: str | None = None, backbone: str = "tiny", norms: bool = True) -> Path:
    """A copy of ``run`` with weights of its own, as if it had been trained from ``weights``."""
    copy, model = shutil.copytree(run, run.parent / name), mixskd.load(run)
    torch.manual_seed(len(name))
    network: Any = model if backbone == model.name else build_backbone(backbone, len(CLASSES), 72)
    for key, x in network.state_dict().items():
        if x.is_floating_point() and (norms or "running" not in key):
            x.mul_(1 + 0.3 * torch.rand(x.shape))
    mixskd.save_model(network, copy, classes=CLASSES, image_size=72, mean=model.mean, std=model.std)
    change(copy, weights=weights, backbone=backbone)
    return copy


def change(run: Path, **settings: Any) -> None:
    """Other settings in config.yaml of ``run``; a mapping changes a part of a group."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in settings.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs; a run ``start``, of which ``a`` and ``bb`` are continuations; and ``other``, of another network."""
    folder = tmp_path_factory.mktemp("average")
    write_photos(folder / "photos")
    start = train(folder, "start")
    like(start, "a", weights=str(start))
    like(start, "bb", weights=str(start))
    like(start, "other", backbone="wrn_10_1")
    return folder


@pytest.fixture(scope="module")
def ensemble(at: Path) -> Path:
    """The mean of the probabilities of two networks."""
    return Path(mixskd.average([at / "start", at / "other"], at / "ensemble")["out"])


def test_mean_of_probabilities_against_float64() -> None:
    z = 3 * torch.randn(4, 5, 6, dtype=torch.float64)
    of_one = mean_of_probabilities(z, several=False)
    assert torch.allclose(of_one.exp(), z.softmax(2).mean(0), rtol=1e-12)
    of_several = mean_of_probabilities(z, several=True)
    assert torch.allclose(of_several.sigmoid(), z.sigmoid().mean(0), rtol=1e-12)


def test_predictions_are_the_mean_of_those_of_the_runs(at: Path, ensemble: Path) -> None:
    files = photos(at / "photos")
    mean = (predicted(at / "start", files) + predicted(at / "other", files)) / 2
    assert np.allclose(predicted(ensemble, files), mean, atol=1e-6)


@pytest.mark.parametrize("file", ["m.pt2", "m.pth", "m.safetensors"])
def test_every_format_holds_the_whole_ensemble(ensemble: Path, tmp_path: Path, file: str) -> None:
    mixskd.export(ensemble, out=tmp_path / file)  # which compares the copy with the classifier


def test_onnx_gives_the_mean_of_the_probabilities(at: Path, ensemble: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = mixskd.export(ensemble, out=tmp_path / "m.onnx", softmax=True, input="float")
    session = onnxruntime.InferenceSession(str(file))
    images = torch.randn(3, 3, 72, 72)
    (given,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        mean = sum(mixskd.load(at / name)(images).double().softmax(1) for name in ("start", "other")) / 2
    assert np.allclose(given, mean, atol=1e-5)


def test_other_verbs_take_the_ensemble(at: Path, ensemble: Path, tmp_path: Path) -> None:
    summary = json.loads((ensemble / "summary.json").read_text())
    assert mixskd.evaluate(ensemble)["top1"] == pytest.approx(summary["scores"]["test"]["top1"])
    page = mixskd.report([ensemble, at / "start"], tmp_path / "report.html").read_text()
    assert "a prediction costs as much as those of the 2 runs together" in page
    mixskd.calibrate(shutil.copytree(ensemble, tmp_path / "e"), coverage=100, data=str(validation(at, tmp_path)))
    assert "ensemble/tiny+wrn_10_1" in Path(mixskd.push(ensemble, to_folder=tmp_path / "card"), "README.md").read_text()
    train(at, "taught", method={"name": "kd", "teacher": str(ensemble)})


def validation(at: Path, to: Path) -> Path:
    """The photographs with their test images as ``val`` too."""
    for split in ("train", "val"):
        shutil.copytree(at / "photos" / "test", to / "data" / split)
    return to / "data"


def test_weights_are_the_mean_and_norms_are_measured_anew(at: Path) -> None:
    found = mixskd.average([at / "a", at / "bb"], at / "soup", weights=True)
    a, b, soup = (mixskd.load(at / name).export_state_dict() for name in ("a", "bb", "soup"))
    for key in soup:
        if "running" not in key and "tracked" not in key:
            assert torch.equal(soup[key], ((a[key].double() + b[key].double()) / 2).float()), key
    first = mixskd.load(at / "soup")
    transform = first.preprocess.transform()
    images = torch.stack([transform(Image.open(file)) for file in photos(at / "photos", "train")])
    maps = torch.nn.functional.conv2d(images, soup["conv0.weight"], stride=2, padding=1).double()
    assert torch.allclose(soup["norm0.running_mean"].double(), maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(soup["norm0.running_var"].double(), maps.var((0, 2, 3)), rtol=1e-4)
    assert found["networks"] == 1
    assert "the statistics of the batch norms were computed anew" in found["notes"][1]


def test_equal_statistics_of_norms_are_kept(at: Path, tmp_path: Path) -> None:
    runs = [like(at / "start", name, weights=str(at / "start"), norms=False) for name in ("frozen", "frozen2")]
    found = mixskd.average(runs, tmp_path / "soup", weights=True)
    start, soup = (mixskd.load(path).export_state_dict() for path in (at / "start", tmp_path / "soup"))
    assert torch.equal(soup["norm1.running_var"], start["norm1.running_var"])
    assert len(found["notes"]) == 1


def test_range_and_resize_of_the_runs_are_kept(at: Path, tmp_path: Path) -> None:
    model, runs = mixskd.load(at / "a"), [at / "range", at / "range2"]
    for run in runs:
        save_model(
            model, like(at / "start", run.name) / "model.safetensors", backbone_name="tiny", classes=CLASSES,
            image_size=72, mean=model.mean, std=model.std, resize="pad", range=(0.0, 200.0),
        )  # fmt: skip
        change(run, data={"range": [0.0, 200.0]})
    mixskd.average(runs, tmp_path / "mean")
    assert mixskd.load(tmp_path / "mean").preprocess == mixskd.load(runs[0]).preprocess
    scores = [mixskd.evaluate(path)["loss"] for path in (runs[0], tmp_path / "mean")]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)  # both have the weights of a


def test_the_command_says_scores_and_cost(at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["average", str(at / "a"), str(at / "bb"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("top-1") == 3
    assert "a prediction costs 2 networks" in said
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == 2


@pytest.mark.parametrize(
    ("runs", "weights", "message"),
    [
        (["a"], False, "needs two runs or more"),
        (["a", "a"], False, "is named twice"),
        (["a", "photos"], False, "has no config.yaml"),
        (["a", "nowhere"], False, "there is no folder"),
        (["a", "other"], True, "a mean of weights needs one backbone, but there are: tiny, wrn_10_1"),
        (["a", "start"], True, "these began at .*start and random weights"),
        (["ensemble", "a"], False, "cannot be averaged further"),
    ],
)
def test_runs_that_do_not_fit_are_one_line(
    at: Path, ensemble: Path, tmp_path: Path, runs: list[str], weights: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        mixskd.average([at / name for name in runs], tmp_path / "out", weights=weights)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_other_classes_or_splits_are_one_line(at: Path, tmp_path: Path) -> None:
    run = shutil.copytree(at / "a", tmp_path / "run")
    model = mixskd.load(run)
    same = {"image_size": 72, "mean": model.mean, "std": model.std}
    for more, message in (({"classes": list("xyz")}, "classes"), ({"image_size": 80}, "image sizes"),
                          ({"std": [0.5] * 3}, "resizing of its images")):  # fmt: skip
        mixskd.save_model(model, run, **{"classes": CLASSES, **same, **more})
        with pytest.raises(UserError, match=f"the one has other .*{message}"):
            mixskd.average([at / "a", run], tmp_path / "out")
    mixskd.save_model(model, run, classes=CLASSES, **same)
    change(run, data={"source": str(tmp_path)})
    with pytest.raises(UserError, match="so that none is held out from both"):
        mixskd.average([at / "a", run], tmp_path / "out")


def test_several_labels_are_averaged_by_sigmoid_with_thresholds_of_val(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = draw.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (draw.random((8, 3)) < 0.5).astype(np.uint8)
    arrays["train_labels"][:3] = np.eye(3)
    np.savez(tmp_path / "data.npz", **arrays)
    for seed in (0, 1):
        mixskd.train(
            data={"source": str(tmp_path / "data.npz")}, backbone="tiny", method="baseline",
            out=str(tmp_path / f"run{seed}"), run={"epochs": 1, "batch_size": 4, "progress": False, "seed": seed},
        )  # fmt: skip
    mixskd.average([tmp_path / "run0", tmp_path / "run1"], tmp_path / "mean")
    models = [mixskd.load(tmp_path / name) for name in ("run0", "run1", "mean")]
    with torch.inference_mode():
        a, b, mean = (model(torch.ones(1, 3, 8, 8)).double().sigmoid() for model in models)
    assert torch.allclose(mean, (a + b) / 2, atol=1e-6)
    assert models[2].name == "multilabel_ensemble/tiny+tiny"
    scores = json.loads((tmp_path / "mean" / "summary.json").read_text())["scores"]["val"]
    assert mixskd.evaluate(tmp_path / "mean", split="val")["f1"] == pytest.approx(scores["f1"])
    assert models[2].thresholds != pytest.approx((0.5,) * 3)


def test_names_of_ensembles_follow_the_rules_of_single_networks() -> None:
    with pytest.raises(UserError, match="unknown backbone 'nothing'"):
        build_backbone("ensemble/tiny+nothing", 3)
    for odd in ("ensemble/tiny+timm/hf-hub:me/model", "ensemble/timm/local-dir:here"):
        for use in (check_local, lambda name: build_backbone(name, 3)):
            with pytest.raises(UserError):
                use(odd)
    with pytest.raises(UserError, match="at most 32"):
        check_local("ensemble/" + "+".join(["tiny"] * (MOST + 1)))


def test_an_ensemble_has_no_stages(at: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is the mean of several networks"):
        train(at, "no", backbone="ensemble/tiny+tiny", method="mixskd")


def test_flips_are_the_mean_over_the_mirror_image(at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = photos(at / "photos")
    mirrored = [tmp_path / f"{i}.png" for i in range(len(files))]
    for file, target in zip(files, mirrored, strict=True):
        ImageOps.mirror(Image.open(file)).save(target)
    mean = (predicted(at / "a", files) + predicted(at / "a", mirrored)) / 2
    given = mixskd.predict(at / "a", files, top=3, flips=True)
    table = [{c["name"]: c["probability"] for c in one["classes"]} for one in given]
    assert np.allclose([[row[name] for name in CLASSES] for row in table], mean, atol=1e-3)  # resizes are not symmetric
    labels = [CLASSES.index(file.parent.name) for file in files]
    loss = -np.log(mean[np.arange(len(labels)), labels]).mean()
    assert mixskd.evaluate(at / "a", flips=True)["loss"] == pytest.approx(loss, abs=1e-3)
    assert main(["evaluate", str(at / "a"), "--flips", "--suite", "accuracy"]) == 2
    assert "--flips is for the scores alone" in capsys.readouterr().err
    assert main(["predict", str(at / "a"), str(files[0]), "--flips"]) == 0


def test_digits_have_no_mirror_images(at: Path, tmp_path: Path) -> None:
    run = shutil.copytree(at / "a", tmp_path / "run")
    change(run, data={"flip": False})
    with pytest.raises(UserError, match="may show another class"):
        mixskd.evaluate(run, flips=True)
