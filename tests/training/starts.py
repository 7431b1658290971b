"""Starts that fail: what lies at their places, the command, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mixskd.backbones import StagedBackbone
from mixskd.cli.main import main
from mixskd.config.build import build_experiment
from mixskd.training.run_folder import RunFolder
from tests.conftest import write_npz

USUAL = {
    "data": "toy.npz", "backbone": "wrn_10_1", "method": "baseline", "out": "run", "epochs": "1", "batch-size": "4",
}  # fmt: skip


def odd(num_classes: int) -> StagedBackbone:
    """A network of two stages, the second of which makes its map four times smaller."""
    stages = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=4, padding=1)]
    return StagedBackbone(stages, nn.Linear(4, num_classes), name="odd")


def broken(num_classes: int) -> StagedBackbone:
    """The same with a weight that is no number."""
    network = odd(num_classes)
    torch.nn.init.constant_(network.head.bias, torch.nan)
    return network


class Start(NamedTuple):
    """``mixskd train`` with the USUAL flags, those of ``flags`` in their place; ``make`` puts files into the folder."""

    name: str
    flags: dict[str, str | None]
    says: str
    make: Callable[[Path], object] = lambda at: None


def npz(at: Path, **changes: np.ndarray) -> None:
    """``other.npz``: the toy data with ``changes``."""
    with np.load(write_npz(at / "other.npz")) as file:
        arrays = {**file, **changes}
    np.savez(at / "other.npz", **arrays)


def photos(at: Path, counts: dict[str, int], size: int = 12) -> Path:
    """``photos``: so many images of noise in each folder."""
    generator = np.random.default_rng(1)
    for folder, count in counts.items():
        (at / "photos" / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(at / "photos" / folder / f"{number}.png")
    return at / "photos"


SPLIT = {"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1}
PHOTOS = {"data": "photos", "data.image-size": "32", "data.workers": "0"}


def bad_photo(at: Path) -> None:
    """An image that is none among those of ``photos``."""
    (photos(at, SPLIT) / "train" / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")


def twin(at: Path) -> None:
    """A test image that is a training image as well."""
    folder = photos(at, SPLIT)
    (folder / "test" / "a" / "twin.png").write_bytes((folder / "train" / "a" / "0.png").read_bytes())


def weights(at: Path, shape: tuple[int, ...]) -> None:
    """``w.safetensors`` with one tensor of another network."""
    save_file({"conv1.weight": torch.zeros(shape)}, at / "w.safetensors")


def run_of(at: Path, *, finished: bool = True, **settings: object) -> None:
    """``run`` as a run of other ``settings`` leaves it, with bytes for its results."""
    folder = RunFolder(at / "run")
    folder.begin(build_experiment({"data": {"source": "toy.npz"}, "out": "run", "backbone": "wrn_10_1", **settings}))
    folder.metrics.write_text("epoch\n1\n")
    if finished:
        folder.model.write_bytes(b"weights")
        folder.summary.write_text("{}")


def finished(at: Path) -> None:
    """``run`` as the USUAL command leaves it, without its checkpoint."""
    argv = [word for name, value in USUAL.items() for word in (f"--{name}", value)]
    assert main(["train", *argv, "--run.progress", "false"]) == 0
    RunFolder(at / "run").checkpoint.unlink()


def named(at: Path, name: str, content: bytes = b"") -> None:
    """A file in the run's folder."""
    (at / "run").mkdir(exist_ok=True)
    (at / "run" / name).write_bytes(content)


STARTS = [
    # The folder.
    Start("out is a file", {}, "is a file; give a folder", lambda at: (at / "run").write_text("mine")),
    Start("out is under a file", {"out": "f/run"}, "cannot write in f/run", lambda at: (at / "f").write_text("mine")),
    Start("out holds other files", {}, "files that belong to no run", lambda at: named(at, "thesis.tex", b"mine")),
    Start("out holds a finished run", {}, "holds a run of another configuration", run_of),
    Start("nothing to resume", {"resume": None}, "nothing to resume in run"),
    Start("resume of another run", {"resume": None}, "another configuration", lambda at: run_of(at, finished=False)),
    Start("resume of a run without its checkpoint", {"resume": None}, "its checkpoint is gone",
          finished),
    Start("resume and overwrite", {"resume": None, "overwrite": None}, "give only one of them", run_of),
    Start("a config.yaml that is none", {}, "cannot read", lambda at: (
        named(at, "config.yaml", b"[1"), named(at, "summary.json", b"{}"))),
    # Overwriting keeps what is there until the new run can begin.
    Start("overwrite and a batch that is too large", {"overwrite": None, "batch-size": "13"}, "larger than", run_of),
    Start("a run without a checkpoint", {"batch-size": "13"}, "larger than", lambda at: run_of(at, finished=False)),
    # Device and precision.
    Start("no such device", {"run.device": "tpu9"}, "there is no device 'tpu9'"),
    Start("a device that some methods cannot use", {"run.device": "mps"}, "is not supported"),
    Start("fp16 on a CPU", {"run.device": "cpu", "run.precision": "fp16"}, "needs a GPU"),
    Start("sync_bn on a CPU", {"run.device": "cpu", "run.sync-bn": "true"}, "run.sync_bn needs GPUs"),
    Start("graphs on a CPU", {"run.device": "cpu", "run.cuda-graphs": "always"}, "run.cuda_graphs needs GPUs"),
    # The images.
    Start("no data set", {"data": "digit"}, "no folder digit, and no data set has that name; did you mean"),
    Start("no data there", {"data": "a/b"}, "there is no data at a/b"),
    Start("an npz that is none", {"data": "a.npz"}, "cannot read a.npz", lambda at: (at / "a.npz").write_bytes(b"PK")),
    Start("a label without a class", {"data": "other.npz"}, "label", lambda at: npz(at, train_labels=np.arange(12))),
    Start("a class without images", {"data": "other.npz"}, "have no training image", lambda at: npz(
        at, train_labels=np.zeros(12, np.int64))),
    Start("another size of arrays", {"data.image-size": "16"}, "leave --data.image-size out"),
    Start("a folder without classes", {"data": "photos"}, "two class folders", lambda at: photos(at, {"train/a": 2})),
    Start("an empty class", PHOTOS, "holds no image", lambda at: photos(at, {**SPLIT, "train/c": 0})),
    Start("an image that is none", PHOTOS, "cannot read the image", bad_photo),
    Start("a class of bad images", {**PHOTOS, "skip-bad-images": None}, "holds no readable image", lambda at: (
        photos(at, {**SPLIT, "train/c": 0}) / "train" / "c" / "x.png").write_bytes(b"no")),
    Start("a test image in train", {**PHOTOS, "data.duplicates": "error"}, "remove them", twin),
    Start("one image a class", PHOTOS, "a hold-out needs two", lambda at: photos(at, {"a": 1, "b": 1})),
    Start("groups of arrays", {"data.group": "x"}, "data.group needs files"),
    Start("groups that are no expression", {**PHOTOS, "data.group": "("}, "not a regular expression",
          lambda at: photos(at, SPLIT)),
    Start("groups that do not fit", {**PHOTOS, "data.group": "patient"}, "does not fit the path",
          lambda at: photos(at, SPLIT)),
    Start("no such policy", {"data.augment": "trivalaugment"}, "did you mean 'trivialaugment'"),
    # The batch.
    Start("a batch that is too large", {"batch-size": "13"}, "larger than the training set of 12"),
    Start("parts that do not divide it", {"run.accumulate": "3"}, "does not divide"),
    Start("nothing to choose on", {"run.keep": "best"}, "run.keep best needs a val split"),
    Start("nothing to stop on", {"run.patience": "2"}, "run.patience needs a val split"),
    # The network and its weights.
    Start("no such backbone", {"backbone": "wrn_16"}, "unknown backbone"),
    Start("a depth that cannot be", {"backbone": "wrn_17_1"}, "the depth must be 6 n + 4"),
    Start("images that are too small", {"data": "other.npz", "backbone": "densenet_40_12"}, "takes images of 4 px",
          lambda at: npz(
              at, train_images=np.zeros((12, 2, 2, 3), np.uint8), test_images=np.zeros((6, 2, 2, 3), np.uint8))),
    Start("no weights there", {"weights": "w.safetensors"}, "w.safetensors"),
    Start("weights of another network", {"weights": "w.safetensors"}, "are not those of a wrn_10_1",
          lambda at: weights(at, (7, 7))),
    Start("weights that are none", {"weights": "w.safetensors"}, "w.safetensors",
          lambda at: (at / "w.safetensors").write_bytes(b"no weights at all")),
    Start("weights that nobody publishes", {"weights": "pretrained"}, "wrn_10_1"),
    # The method.
    Start("no teacher", {"method": "tfkd_self"}, "tfkd_self needs a trained teacher"),
    Start("no teacher to distil", {"method": "kd"}, "kd needs a trained teacher"),
    Start("a teacher that is not there", {"method": "tfkd_self", "method.teacher": "runs/t"}, "runs/t"),
    Start("a depth of the method", {"method": "manifold_mixup", "method.depth": "9"}, "depth must be from 0 to"),
    Start("stages of the teacher", {"method": "mixskd", "method.teacher-stages": "9"}, "teacher_stages must be from"),
    Start("stages of zipf_ls", {"method": "zipf_ls", "method.depth": "9"}, "depth must be from 1 to"),
    # The optimizer and its rate.
    Start("no such optimizer", {"optim.name": "timm/sdg"}, "timm has no optimizer 'sdg'; did you mean"),
    Start("a freeze of too many stages", {"optim.freeze": "9"}, "optim.freeze 9: wrn_10_1 has"),
    # The first step.
    Start("maps that neither stay nor halve", {"backbone": "odd", "method": "frskd"}, "FRSKD needs stages"),
    Start("a loss that is no number", {"backbone": "broken"}, "the loss term 'loss' became NaN or infinite at step 1"),
]  # fmt: skip
