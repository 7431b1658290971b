"""Detectors and segmentation networks through the one trainer, the command line and the files of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import load_file

from mixskd.backbones import BACKBONES
from mixskd.cli.main import main
from mixskd.config import Experiment, OptimConfig, read_yaml
from mixskd.config.build import build_experiment
from mixskd.deploy.exports.segmentation import export_onnx
from mixskd.errors import UserError
from mixskd.training.factory import build_parts
from mixskd.training.run import train
from mixskd.training.schedule import learning_rate
from mixskd.transfer.detection.model import Detector
from mixskd.transfer.evaluating import evaluate
from mixskd.transfer.network_file import About, load_network, save_network
from mixskd.transfer.predicting import predict, run_lengths
from mixskd.transfer.segmentation.model import DeepLabV3
from mixskd.transfer.start import TransferConfig, description_of, scaled
from tests.transfer.detection.support import content, tiny_backbone
from tests.transfer.detection.support import write as write_boxes
from tests.transfer.segmentation.support import write as write_masks

SMALL = {
    "cascade_rcnn": {"channels": 8, "hidden": 16, "rois": 8, "proposals": 20, "short": [32, 64], "long": 64},
    "deeplabv3": {"head": "torchvision", "crop": 32, "output_stride": 16},
}
WRITERS: dict[str, Callable[[Path], Path]] = {"cascade_rcnn": write_boxes, "deeplabv3": write_masks}
NAMES = [*SMALL]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", lambda classes: tiny_backbone())


def experiment(name: str, root: Path, out: Path, **settings: Any) -> Experiment:
    data = root / "data"
    if not data.exists():
        WRITERS[name](data)
    values: dict[str, Any] = {
        "backbone": "tiny", "method": {"name": name, **SMALL[name], **settings.pop("method", {})},
        "data": {"source": str(data), "workers": 0}, "out": str(out),
        "optim": {"lr": 0.08, "schedule": "poly", "warmup_epochs": 0, "nesterov": False},
        "run": {"epochs": 2, "batch_size": 2, "progress": False, "precision": "fp32", **settings.pop("run", {})},
    }  # fmt: skip
    return build_experiment({**values, **settings})


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_its_files_and_the_network_can_be_scored_and_used(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = train(experiment(name, tmp_path, out))
    monitor = {"cascade_rcnn": "ap", "deeplabv3": "miou"}[name]
    assert summary["updates"] == 4
    assert summary["deployed"]["selected_on"] == "val"
    assert "the learning rate is 0.01, since optim.lr 0.08 is for batches of 16" in summary["notes"][0]
    assert read_yaml(out / "config.yaml")["optim"]["lr"] == 0.08  # as asked for, so that the file gives the same run
    header = (out / "metrics.csv").read_text().splitlines()[0]
    assert f"val_{monitor}" in header
    assert "train_stage3_box" in header or "train_aux" in header

    scores = evaluate(out)
    assert scores["split"] == "val"
    assert scores[monitor] == summary["scores"]["val"][monitor]
    file = tmp_path / "7.png"
    Image.new("RGB", (90, 50), (90, 140, 230)).save(file)
    entries = predict(out, [file], tmp_path / "found", threshold=0.0)
    assert json.loads((tmp_path / "found" / "predictions.json").read_text()) == entries
    assert all(entry["image_id"] == 7 for entry in entries)
    assert pixels(tmp_path / "found" / "7.png").shape == (50, 90, 3)
    if name == "deeplabv3":
        assert pixels(tmp_path / "found" / "7_mask.png").shape == (50, 90)
        assert sum(sum(entry["segmentation"]["counts"][1::2]) for entry in entries) == 90 * 50
    else:
        assert {entry["category_id"] for entry in entries} <= {3, 7}


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_has_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"method": {"iterations": 4}, "run": {"checkpoint_every_steps": 1}}
    train(experiment(name, tmp_path, tmp_path / "whole", **settings))

    from mixskd.training.trainer import Trainer

    update = Trainer.update

    def dies(self: Trainer, batch: Any, epoch: int) -> None:
        if self.position.step == 3:
            raise KeyboardInterrupt
        update(self, batch, epoch)

    monkeypatch.setattr(Trainer, "update", dies)
    parted = experiment(name, tmp_path, tmp_path / "parted", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(parted)
    monkeypatch.setattr(Trainer, "update", update)
    train(parted, resume=True)
    whole, again = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "parted"))
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    texts = [(tmp_path / run / "metrics.csv").read_text() for run in ("whole", "parted")]
    assert texts[0] == texts[1]


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        values = content()
        change(values)
        (data / "train.json").write_text(json.dumps(values))

    return damage


def unknown_label(data: Path) -> None:
    Image.fromarray(np.full((32, 40), 7, dtype=np.uint8)).save(data / "masks" / "train" / "1.png")


# The network, what is wrong with its training data, and the file that the line names.
BAD: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "category": ("cascade_rcnn", edited(lambda v: v["annotations"][0].update(category_id=99)), "10.png"),
    "outside": ("cascade_rcnn", edited(lambda v: v["annotations"][2].update(bbox=[90, 90, 40, 40])), "20.png"),
    "no area": ("cascade_rcnn", edited(lambda v: v["annotations"][3].update(bbox=[9, 9, 12, 0])), "30.png"),
    "no image": ("cascade_rcnn", lambda data: (data / "train" / "20.png").unlink(), "20.png"),
    "size": ("deeplabv3", lambda data: Image.new("L", (3, 3)).save(data / "masks" / "train" / "1.png"), "1.png"),
    "label": ("deeplabv3", unknown_label, "1.png"),
    "no mask": ("deeplabv3", lambda data: (data / "masks" / "train" / "2.png").unlink(), "2.png"),
    "no image of a mask": ("deeplabv3", lambda data: (data / "images" / "train" / "3.png").unlink(), "3.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_annotations_end_the_command_with_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, file = BAD[case]
    damage(WRITERS[name](tmp_path / "data"))
    verb = {"cascade_rcnn": "detect", "deeplabv3": "segment"}[name]
    words = [verb, "train", "--data", str(tmp_path / "data"), "--backbone", "tiny", "--out", str(tmp_path / "run")]
    words += [f"--method.{key.replace('_', '-')}={str(value).strip('[]')}" for key, value in SMALL[name].items()]
    words += ["--method.iterations", "1", "--epochs", "1", "--batch-size", "2", "--data.workers", "0"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{file} " in error or f"{file}:" in error or f"/{file}" in error
    assert "--skip-bad-annotations" in error
    assert main([*words, "--dry-run"]) == 2
    assert capsys.readouterr().err == error
    assert not (tmp_path / "run").exists()
    if case not in ("category", "size"):  # what is skipped is told by tests of the data
        return
    assert main([*words, "--skip-bad-annotations", "--dry-run"]) == 0
    assert f"method: {name}" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main([*words, "--skip-bad-annotations"]) == 0
    assert ("AP50" if verb == "detect" else "mIoU") in capsys.readouterr().out
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert any(note.startswith("1 bad annotations of train") for note in notes)


def test_the_other_tasks_networks_and_wrong_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_masks(tmp_path / "data")
    words = ["segment", "train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main([*words, "--method", "mixskd"]) == 2
    assert "mixskd segment trains deeplabv3, not mixskd" in capsys.readouterr().err
    assert main([*words, "--data.image-size", "64"]) == 2
    assert "takes its image size from --method.crop" in capsys.readouterr().err
    assert main([*words, "--method.iterations", "7", "--epochs", "2"]) == 2
    assert "cannot be divided into run.epochs 2 equal parts" in capsys.readouterr().err
    assert main([*words, "--backbone", "tiny", "--batch-size", "1"]) == 2
    assert "deeplabv3 needs two or more images in each step of a process" in capsys.readouterr().err
    assert main([*words, "--data.augment", "cutout"]) == 2
    assert "deeplabv3 does not take data.augment" in capsys.readouterr().err


def test_data_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    chosen = experiment("deeplabv3", tmp_path, tmp_path / "run")
    for kind in ("images", "masks"):
        for file in (tmp_path / "data" / kind / "val").iterdir():
            file.unlink()
        (tmp_path / "data" / kind / "val").rmdir()
    with pytest.raises(UserError, match="neither a val nor a test split"):
        build_parts(chosen)


@pytest.mark.parametrize(("batch", "literal", "lr"), [(16, False, 0.02), (8, False, 0.01), (8, True, 0.02)])
def test_the_linear_scaling_rule_and_its_switch(batch: int, literal: bool, lr: float) -> None:
    values = {"method": {"name": "cascade_rcnn"}, "optim": {"lr": 0.02}, "run": {"batch_size": batch}, "out": "x"}
    changed, notes = scaled(build_experiment(values), TransferConfig(lr_literal=literal))
    assert changed.optim.lr == lr
    assert bool(notes) == (lr != 0.02)


def test_a_networks_file_is_told_from_a_classifiers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        evaluate(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="corrupt, truncated or not a safetensors file"):
        evaluate(tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself
def test_masks_are_cocos_run_lengths() -> None:
    generator = np.random.default_rng(0)
    for mask in (generator.random((7, 5)) < 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        decoded = coco_mask.decode(coco_mask.frPyObjects(run_lengths(mask), *mask.shape))
        assert np.array_equal(decoded.astype(bool), mask)


def test_backbone_and_normalisation_come_with_the_weights_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mixskd.artifacts.model_file import save_model
    from mixskd.transfer.start import make_backbone, normalisation_of

    backbone = tiny_backbone()
    file = tmp_path / "model.safetensors"
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    save_model(backbone, file, backbone_name="tiny", classes=("a", "b"), image_size=64, mean=mean, std=std)
    assert normalisation_of("tiny", str(tmp_path)) == (mean, std)
    made, notes = make_backbone("tiny", str(tmp_path))
    assert notes == []
    assert made.pretrained
    assert torch.equal(*(next(net.stages.parameters()) for net in (made, backbone)))
    assert main(["detect", "train", "--weights", str(tmp_path), "--out", str(tmp_path / "x"), "--print-config"]) == 0
    assert "backbone: tiny" in capsys.readouterr().out


def test_the_poly_schedule_falls_with_every_step() -> None:
    optim = OptimConfig(lr=0.02, schedule="poly", warmup_epochs=0, nesterov=False)
    rates = [learning_rate(optim, step, 10, 4) for step in (0, 1, 20, 39, 40)]
    assert rates == pytest.approx([0.02 * (1 - step / 40) ** 0.9 for step in (0, 1, 20, 39, 40)])


def test_a_segmentation_network_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = build_experiment({"method": {"name": "deeplabv3", **SMALL["deeplabv3"], "aux": 0}, "out": "x"}).method
    about = About("deeplabv3", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, options.options)
    save_network(DeepLabV3(tiny_backbone(), 2, about.config), tmp_path / "model.safetensors", about)
    assert export_onnx(tmp_path, size=64) == tmp_path / "model.onnx"
    detector = About("cascade_rcnn", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, SMALL["cascade_rcnn"])
    save_network(Detector(tiny_backbone(), 2, detector.config), tmp_path / "model.safetensors", detector)
    with pytest.raises(UserError, match="a detector has no ONNX export"):
        export_onnx(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "timm/hf-hub:someone/model"}, "hf-hub"),
        ({"backbone": "nowhere"}, "unknown backbone 'nowhere'"),
        ({"mean": ("a", 0.5, 0.5)}, r"is damaged: mean\[0\] must be a number"),
        ({"std": (0.0,) * 3}, "is damaged: std"),
        ({"network": "yolo"}, "is damaged: network must be one of"),
        ({"classes": ()}, "is damaged: classes must be a list of length"),
    ],
)
def test_a_network_file_from_a_stranger_is_examined(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    about = About("cascade_rcnn", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, SMALL["cascade_rcnn"])
    model = Detector(tiny_backbone(), 2, about.config)
    path = tmp_path / "model.safetensors"
    save_network(model, path, msgspec.structs.replace(about, **change))
    with pytest.raises(UserError, match=message) as raised:
        load_network(path)
    assert "\n" not in str(raised.value)
    if change.keys() <= {"backbone", "mean", "std"}:  # what a run that starts from its weights reads of it
        with pytest.raises(UserError, match=message):
            description_of(str(path))


def test_a_network_of_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    about = About("cascade_rcnn", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, SMALL["cascade_rcnn"])
    model = Detector(tiny_backbone(), 2, about.config)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    save_network(model, tmp_path / "model.safetensors", about)
    with pytest.raises(UserError, match="not finite"):
        load_network(tmp_path)
