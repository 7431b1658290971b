"""Averages of classifiers and of mirror images give the mean of the probabilities, wherever a model file goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixskd
from mixskd.backbones import build_backbone, check_local
from mixskd.backbones.averaged import WithMirror, mean_as_logits
from mixskd.cli.main import main
from mixskd.errors import UserError
from tests.conftest import write_npz

IMAGES = torch.randn(3, 3, 8, 8)


def save(path: Path, backbone: str = "wrn_10_1", classes: str = "abc", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = build_backbone(backbone, len(classes))
    return mixskd.save_model(network, path, classes=list(classes), image_size=8, mean=[0.5] * 3, std=[0.2] * 3)


def test_mean_of_probabilities() -> None:
    logits = [torch.randn(4, 5).double(), 300 * torch.randn(4, 5).double()]
    mean = sum(x.softmax(1) for x in logits) / 2
    torch.testing.assert_close(mean_as_logits(logits).softmax(1).double(), mean, atol=1e-6, rtol=0)
    several = sum(x.sigmoid() for x in logits) / 2
    torch.testing.assert_close(mean_as_logits(logits, several=True).sigmoid().double(), several, atol=1e-6, rtol=0)


def test_average_is_one_model_file(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / f"{i}.safetensors", name, seed=i) for i, name in enumerate(["wrn_10_1"] * 2 + ["wrn_10_2"])
    ]
    out = mixskd.average(paths, tmp_path / "all.safetensors")
    with torch.inference_mode():
        given = mixskd.load(out)(IMAGES).softmax(1)
        wanted = sum(mixskd.load(path)(IMAGES).softmax(1) for path in paths) / 3
    torch.testing.assert_close(given, wanted)
    assert mixskd.evaluate(out, write_npz(tmp_path / "toy.npz"))["images"] == 6
    program = torch.export.load(mixskd.export(out, "pt2", tmp_path / "all.pt2")).module()
    torch.testing.assert_close(program(IMAGES).softmax(1), wanted)
    for call, message in (
        (lambda: mixskd.average(paths, out), "exists"),
        (lambda: mixskd.average(paths[:1], tmp_path / "new.safetensors"), "two runs"),
        (lambda: mixskd.average([paths[0], save(tmp_path / "four.safetensors", classes="abcd")]), "in their classes"),
        (lambda: mixskd.average(paths, tmp_path / "new.safetensors", weights=True), "not a run's folder"),
        (lambda: check_local("average:2*evil"), "evil"),
        (lambda: check_local("average:wrn"), "names no average"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_mean_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, data = save(tmp_path / "start.safetensors"), str(write_npz(tmp_path / "toy.npz"))
    runs = [str(tmp_path / name) for name in ("one", "two")]
    for seed, out in enumerate(runs):
        mixskd.train(
            data=data, backbone="wrn_10_1", method="baseline", weights=start, out=out, optim={"lr": 0.01},
            run={"epochs": 1, "batch_size": 4, "seed": seed, "progress": False, "probe": "never"},
        )  # fmt: skip
    out = tmp_path / "soup.safetensors"
    assert main(["average", *runs, "--weights", "--out", str(out)]) == 0
    soup, *states = (mixskd.load(path).state_dict() for path in (out, *runs))
    torch.testing.assert_close(soup["head.weight"], (states[0]["head.weight"] + states[1]["head.weight"]) / 2)
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", data, "--flips"]) == 0
    assert "6 images" in capsys.readouterr().out


def test_flips_do_not_depend_on_the_side(tmp_path: Path) -> None:
    model = WithMirror(mixskd.load(save(tmp_path / "m.safetensors")))
    with torch.inference_mode():
        torch.testing.assert_close(model(IMAGES), model(IMAGES.flip(3)))
        wanted = (model.model(IMAGES).softmax(1) + model.model(IMAGES.flip(3)).softmax(1)) / 2
        torch.testing.assert_close(model(IMAGES).softmax(1), wanted)
