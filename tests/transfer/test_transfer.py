"""Detectors and segmentation networks through the one trainer, the command line and the files of a run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file

from mixskd.backbones import BACKBONES
from mixskd.cli.main import main
from mixskd.config import DataConfig, Experiment, OptimConfig, read_yaml
from mixskd.config.build import build_experiment
from mixskd.config.trusted_backbones import VARIABLE
from mixskd.data import verify
from mixskd.data.images import check_image
from mixskd.deploy.exports import transfer_onnx
from mixskd.deploy.exports.transfer_onnx import OneImage, compare_detections, export_onnx, run_by_onnxruntime
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.training.factory import build_parts
from mixskd.training.run import train
from mixskd.training.schedule import learning_rate
from mixskd.transfer.config import TransferConfig
from mixskd.transfer.detection.model import Detector
from mixskd.transfer.evaluating import evaluate
from mixskd.transfer.network_file import NetworkDescription, load_network, save_network
from mixskd.transfer.predicting import batches, check_drawings, predict
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.evaluation import run_lengths
from mixskd.transfer.segmentation.model import DeepLabV3
from mixskd.transfer.setup import set_up_transfer
from mixskd.transfer.starting_weights import description_of, make_network, scaled
from tests.transfer.detection.support import content, tiny_backbone
from tests.transfer.detection.support import write as write_boxes
from tests.transfer.segmentation.support import write as write_masks

SMALL = {
    "cascade_rcnn": {"channels": 8, "hidden": 16, "rois": 8, "proposals": 20, "short": [32, 64], "long": 64},
    "deeplabv3": {"head": "torchvision", "crop": 32, "output_stride": 16},
}
DETECTOR = NetworkDescription("cascade_rcnn", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, SMALL["cascade_rcnn"])
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
        "data": {"source": str(data), "workers": 0, "skip_bad_images": settings.pop("data.skip_bad_images", False)},
        "out": str(out),
        "optim": {"lr": 0.08, "schedule": "poly", "warmup_epochs": 0, "nesterov": False},
        "run": {"epochs": 2, "batch_size": 2, "progress": False, "precision": "fp32", **settings.pop("run", {})},
    }  # fmt: skip
    return build_experiment({**values, **settings})


@pytest.mark.parametrize("name", NAMES)
def test_run_can_be_evaluated_and_used_for_prediction(name: str, tmp_path: Path) -> None:
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
    drawn = pixels(tmp_path / "found" / "7.png")
    if name == "deeplabv3":
        assert drawn.shape[1:] == (90, 3)
        assert drawn.shape[0] > 50  # the legend
        assert pixels(tmp_path / "found" / "7_mask.png").shape == (50, 90)
        assert sum(sum(entry["segmentation"]["counts"][1::2]) for entry in entries) == 90 * 50
        Image.open(file).save(tmp_path / "07.png")  # the same number
        entries = predict(out, [file, tmp_path / "07.png"], tmp_path / "both")
        assert {entry["image_id"] for entry in entries} == {1, 2}
    else:
        assert drawn.shape == (50, 90, 3)
        assert {entry["category_id"] for entry in entries} <= {3, 7}


@pytest.mark.parametrize("name", NAMES)
def test_resumed_run_is_bit_identical(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("name", NAMES)
def test_images_are_decoded_once_for_all_starts_and_have_a_limit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    WRITERS[name](tmp_path / "data")
    for file in (tmp_path / "data").rglob("*.png"):
        os.utime(file, (1e9, 1e9))  # what was just changed is not remembered
    decoded: list[object] = []

    def counting(path: object, *arguments: Any, **options: Any) -> int:
        decoded.append(path)
        return check_image(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(verify, "check_image", counting)
    build_parts(experiment(name, tmp_path, tmp_path / "run"))
    first = len(decoded)
    build_parts(experiment(name, tmp_path, tmp_path / "run"))
    assert len(decoded) == first > 0
    for mode in ("cached", "headers", "full"):
        given = {"source": str(tmp_path / "data"), "workers": 0, "max_pixels": 100, "verify": mode}
        with pytest.raises(UserError, match=r"cannot read the image .*max_pixels"):
            build_parts(dataclasses.replace(experiment(name, tmp_path, tmp_path / "run"), data=DataConfig(**given)))
    unread = dataclasses.replace(
        experiment(name, tmp_path, tmp_path / "run"), data=DataConfig(**given | {"verify": "off"})
    )
    with pytest.raises(UserError, match=r"cannot read the image .*max_pixels"):
        next(iter(build_parts(unread).loader.epoch(0)))


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
    "negative": ("cascade_rcnn", edited(lambda v: v["annotations"][3].update(bbox=[9, 9, 12, -1])), "30.png"),
    "no image": ("cascade_rcnn", lambda data: (data / "train" / "20.png").unlink(), "20.png"),
    "size": ("deeplabv3", lambda data: Image.new("L", (3, 3)).save(data / "masks" / "train" / "1.png"), "1.png"),
    "label": ("deeplabv3", unknown_label, "1.png"),
    "no mask": ("deeplabv3", lambda data: (data / "masks" / "train" / "2.png").unlink(), "2.png"),
    "no image of a mask": ("deeplabv3", lambda data: (data / "images" / "train" / "3.png").unlink(), "3.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_annotation_ends_the_command_with_one_line(
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


@pytest.mark.parametrize("name", NAMES)
def test_damaged_images_are_skipped_and_counted(name: str, tmp_path: Path) -> None:
    data = WRITERS[name](tmp_path / "data")
    file = data / ("train/20.png" if name == "cascade_rcnn" else "images/train/1.png")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"cannot read the image .*{file.name}.*--skip-bad-images"):
        build_parts(experiment(name, tmp_path, tmp_path / "run"))
    parts = build_parts(experiment(name, tmp_path, tmp_path / "run", **{"data.skip_bad_images": True}))
    assert len(parts.data.train) == 3
    assert any(note.startswith("1 unreadable images of train") for note in parts.notes)


def test_val_without_a_counted_pixel_is_refused_before_training(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data")
    for file in (data / "masks" / "val").iterdir():
        Image.new("L", (40, 32), 9).save(file)
    with pytest.raises(UserError, match=r"every pixel of the val split of .* is ignored"):
        train(experiment("deeplabv3", tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["detect", "segment"])
def test_help_shows_the_settings_that_apply_with_their_defaults(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--backbone (text; default resnet50)" in text
    assert "--optim.lr (number above 0; default 0.02)" in text
    own = {"detect": "--method.rpn-border", "segment": "--method.output-stride"}[verb]
    assert own in text
    for absent in (
        "cifar_resnet18",
        "digits,",
        "--data.augment",
        "--run.all-heads",
        "--data.image-size",
        "original_bake",
    ):
        assert absent not in text


def test_networks_of_other_tasks_and_wrong_settings_are_refused(
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


def test_data_without_val_and_test_are_refused(tmp_path: Path) -> None:
    chosen = experiment("deeplabv3", tmp_path, tmp_path / "run")
    for kind in ("images", "masks"):
        for file in (tmp_path / "data" / kind / "val").iterdir():
            file.unlink()
        (tmp_path / "data" / kind / "val").rmdir()
    with pytest.raises(UserError, match="neither a val nor a test split"):
        build_parts(chosen)


@pytest.mark.parametrize(("batch", "literal", "lr"), [(16, False, 0.02), (8, False, 0.01), (8, True, 0.02)])
def test_learning_rate_is_scaled_by_batch_size_unless_literal(batch: int, literal: bool, lr: float) -> None:
    values = {"method": {"name": "cascade_rcnn"}, "optim": {"lr": 0.02}, "run": {"batch_size": batch}, "out": "x"}
    experiment = build_experiment(values)
    optim, notes = scaled(experiment.optim, experiment.run.batch_size, TransferConfig(lr_literal=literal))
    assert optim.lr == lr
    assert bool(notes) == (lr != 0.02)


def test_missing_or_damaged_network_file_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        evaluate(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="corrupt, truncated or not a safetensors file"):
        evaluate(tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself
def test_run_lengths_match_pycocotools() -> None:
    generator = np.random.default_rng(0)
    for mask in (generator.random((7, 5)) < 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        decoded = coco_mask.decode(coco_mask.frPyObjects(run_lengths(mask), *mask.shape))
        assert np.array_equal(decoded.astype(bool), mask)


def test_weights_of_a_run_give_backbone_and_normalisation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mixskd.artifacts.model_file import save_model
    from mixskd.transfer.starting_weights import normalisation_of

    backbone = tiny_backbone()
    file = tmp_path / "model.safetensors"
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    save_model(backbone, file, backbone_name="tiny", classes=("a", "b"), image_size=64, mean=mean, std=std)
    assert normalisation_of("tiny", str(tmp_path)) == (mean, std)
    chosen = build_experiment({"backbone": "tiny", "weights": str(tmp_path), "method.name": "deeplabv3", "out": "x"})
    _, made, notes = make_network(chosen, 2, DeepLabConfig())
    assert notes == []
    assert made.pretrained
    assert torch.equal(*(next(net.stages.parameters()) for net in (made, backbone)))
    assert main(["detect", "train", "--weights", str(tmp_path), "--out", str(tmp_path / "x"), "--print-config"]) == 0
    assert "backbone: tiny" in capsys.readouterr().out
    grey = {"backbone_name": "tiny", "classes": ("a", "b"), "image_size": 64, "mean": (0.5,), "std": (0.5,)}
    save_model(backbone, file, **grey)
    assert main(["detect", "train", "--weights", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "is for images of 1 channel; detectors and segmentation networks take RGB" in capsys.readouterr().err


def test_poly_schedule_falls_at_every_step() -> None:
    optim = OptimConfig(lr=0.02, schedule="poly", warmup_epochs=0, nesterov=False)
    rates = [learning_rate(optim, step, 10, 4) for step in (0, 1, 20, 39, 40)]
    assert rates == pytest.approx([0.02 * (1 - step / 40) ** 0.9 for step in (0, 1, 20, 39, 40)])


def test_segmentation_network_as_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    options = build_experiment({"method": {"name": "deeplabv3", **SMALL["deeplabv3"], "aux": 0}, "out": "x"}).method
    about = NetworkDescription("deeplabv3", "tiny", ("a", "b"), (0.5,) * 3, (0.25,) * 3, options.options)
    save_network(DeepLabV3(tiny_backbone(), 2, about.config), tmp_path / "model.safetensors", about)
    assert export_onnx(tmp_path, size=64) == tmp_path / "model.onnx"
    (entry,) = onnx.load(tmp_path / "model.onnx").metadata_props
    assert json.loads(entry.value)["classes"] == ["a", "b"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["cascade_rcnn", "faster_rcnn"])
def test_detector_as_onnx_agrees_on_images_of_any_size(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    about = NetworkDescription(
        name, "tiny", ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3, SMALL["cascade_rcnn"] | {"proposals": 100}
    )
    model = Detector(tiny_backbone(), 3, about.config, architecture=name)
    with torch.no_grad():  # scores that differ from box to box, so that every part of the graph decides something
        for key, weights in model.named_parameters():
            if "score.weight" in key or "cls_score.weight" in key or "cls_logits.weight" in key:
                weights.normal_(std=1.0)
    save_network(model, tmp_path / "model.safetensors", about)
    file = export_onnx(tmp_path)
    single, counts = OneImage(model.eval()).eval(), set()
    generator = torch.Generator().manual_seed(1)
    for height, width in ((64, 64), (50, 90), (130, 33), (200, 170)):
        images = torch.randn(1, 3, height, width, generator=generator)
        with torch.inference_mode():
            boxes, labels, scores = single(images)
        other_boxes, other_labels, other_scores = run_by_onnxruntime(file)(images)
        assert torch.equal(labels, other_labels)
        torch.testing.assert_close(scores, other_scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(boxes, other_boxes, rtol=1e-4, atol=1e-2)
        counts.add(len(labels))
    assert len(counts) > 1
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        export_onnx(tmp_path)


def test_different_copy_of_a_detector_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20]]), torch.tensor([1, 2]), torch.tensor([0.9, 0.8]))
    monkeypatch.setattr(OneImage, "forward", lambda self, images: found)
    for place, other in ((0, found[0] + 1), (1, found[1] + 1), (2, found[2] - 0.1)):
        copied = [*found[:place], other, *found[place + 1 :]]
        monkeypatch.setattr(transfer_onnx, "run_by_onnxruntime", lambda file, copied=copied: lambda images: copied)
        with pytest.raises(UserError, match="detections of the copy and the network differ"):
            compare_detections(OneImage(torch.nn.Identity()), tmp_path, [torch.zeros(1)])
    monkeypatch.setattr(transfer_onnx, "run_by_onnxruntime", lambda file: lambda images: found)
    compare_detections(OneImage(torch.nn.Identity()), tmp_path, [torch.zeros(1)])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_of_predictions_json_are_those_of_evaluate(batch_size: int, tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data")
    for image in (data / "val").iterdir():  # several sizes in the pixels of the file
        with Image.open(image) as opened:
            opened.resize((96, 96)).save(image)
    torch.manual_seed(0)
    options = SMALL["cascade_rcnn"] | {"proposals": 300}
    about = NetworkDescription("cascade_rcnn", "tiny", ("red", "blue"), (0.5,) * 3, (0.25,) * 3, options, (3, 7))
    model = Detector(tiny_backbone(), 2, about.config)
    for stage in model.heads.stages:  # type: ignore[union-attr]
        torch.nn.init.normal_(stage.score.weight)
    save_network(model, tmp_path / "model.safetensors", about)
    scores = evaluate(tmp_path, str(data), split="val")
    predict(tmp_path, [data / "val"], tmp_path / "found", batch_size=batch_size)
    annotations = COCO(str(data / "val.json"))
    reference = COCOeval(annotations, annotations.loadRes(str(tmp_path / "found" / "predictions.json")), "bbox")
    reference.evaluate(), reference.accumulate(), reference.summarize()
    assert scores["ap"] / 100 == pytest.approx(reference.stats[0], abs=1e-6)
    assert scores["ar100"] / 100 == pytest.approx(reference.stats[8], abs=1e-6)
    assert scores["ap"] > 0
    with pytest.raises(UserError, match="there is no device 'abacus'"):
        predict(tmp_path, [data / "val"], tmp_path / "found", device="abacus")


@pytest.mark.parametrize(
    ("files", "endings", "message"),
    [
        (("a/x.jpg", "b/x.png"), (".png",), r"a/x.jpg and b/x.png would both be drawn to x.png"),
        (("a/x.jpg", "a/x_mask.jpg"), (".png", "_mask.png"), r"would both be drawn to x_mask.png"),
        (("out/x.png",), (".png",), r"a drawing of out/x.png would replace the image .*out/x.png; give another folder"),
        (("out/x_mask.png", "a/x.jpg"), (".png", "_mask.png"), "would replace the image"),
    ],
)
def test_predict_refuses_drawings_that_replace_others(files: tuple[str, ...], endings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_drawings([Path(file) for file in files], Path("out"), endings)
    check_drawings([Path(f"a/{number}_mask.png") for number in range(2)], Path("out"), endings)


def test_predict_refuses_wrong_arguments_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for images, options, message in (
        ([], {}, "there is no image in"), ([tmp_path / "a"], {}, "there is no image in"),
        ([tmp_path / "a"], {"batch_size": 0}, "batch_size must be above 0"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            predict(tmp_path, images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_batches_hold_images_of_one_size() -> None:
    sizes = [(9, 9), (5, 9), (9, 9), (9, 9), (5, 9)]
    assert [*batches(sizes, 2)] == [(1, 4), (0, 2), (3,)]
    assert [*batches(sizes, 10**30)] == [(1, 4), (0, 2, 3)]


def test_network_starts_from_a_trained_one_of_other_classes(tmp_path: Path) -> None:
    trained = Detector(tiny_backbone(), 2, DETECTOR.config)
    save_network(trained, tmp_path / "model.safetensors", DETECTOR)
    settings = {"backbone": "tiny", "weights": str(tmp_path), "out": "x"}
    chosen = build_experiment({**settings, "method": {"name": "cascade_rcnn", **SMALL["cascade_rcnn"]}})
    for classes in (2, 5):
        config = DETECTOR.config
        method, backbone, notes = make_network(chosen, classes, config)
        assert backbone.pretrained
        new = {f"heads.stages.{k}.score" for k in range(3)} if classes == 5 else set()
        own, before = method.backbone.state_dict(), trained.state_dict()
        for key, value in own.items():
            assert torch.equal(value, before[key]) == (key.rpartition(".")[0] not in new), key
        assert (notes[0].count("score") == 3) == (classes == 5)
    other = build_experiment({**settings, "method": {"name": "deeplabv3"}})
    with pytest.raises(UserError, match=r"a deeplabv3 on tiny cannot start from .* which holds a cascade_rcnn on tiny"):
        make_network(other, 2, DeepLabConfig())


def test_network_from_elsewhere_is_stored_by_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    about = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": {"classifier": "fc"}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    monkeypatch.setenv(VARIABLE, name := f"timm/local-dir:{tmp_path}")
    setup = set_up_transfer(experiment("cascade_rcnn", tmp_path, tmp_path, backbone=name), World(), torch.device("cpu"))
    setup.save(setup.method.backbone, tmp_path / "model.safetensors")
    assert load_network(tmp_path)[1].backbone == "timm/resnet10t"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "timm/hf-hub:someone/model"}, "hf-hub"),
        ({"backbone": "nowhere"}, "unknown backbone 'nowhere'"),
        ({"mean": ("a", 0.5, 0.5)}, r"is damaged: mean\[0\] must be a number"),
        ({"std": (0.0,) * 3}, "is damaged: std"),
        ({"network": "yolo"}, "is damaged: network must be one of"),
        ({"classes": ()}, "is damaged: classes must be a list of length"),
        (
            {"options": {**SMALL["cascade_rcnn"], "hidden": 100_000}},
            "its weights do not fit",
        ),  # 120 GB
    ],
)
def test_untrusted_network_file_is_examined(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = Detector(tiny_backbone(), 2, DETECTOR.config)
    path = tmp_path / "model.safetensors"
    save_network(model, path, msgspec.structs.replace(DETECTOR, **change))
    with pytest.raises(UserError, match=message) as raised:
        load_network(path)
    assert "\n" not in str(raised.value)
    if change.keys() <= {"backbone", "mean", "std"}:  # what a run that starts from its weights reads of it
        with pytest.raises(UserError, match=message):
            description_of(str(path))


def test_network_with_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    model = Detector(tiny_backbone(), 2, DETECTOR.config)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    save_network(model, tmp_path / "model.safetensors", DETECTOR)
    with pytest.raises(UserError, match="not finite"):
        load_network(tmp_path)
