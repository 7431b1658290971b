"""Weights that exist: they arrive to the bit, branches start from them, and what does not fit is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import mixskd
from mixskd.backbones import StagedBackbone, build_backbone, start_from
from mixskd.backbones.pretrained import normalisation_of
from mixskd.data.preprocess import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD
from mixskd.errors import UserError
from mixskd.methods.mixskd import MixSKD
from mixskd.runtime.files import load_tensors


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.1 + 0.01)
    return model.eval()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_start_from_state_dict_of_another_library(library: str, wrapped: bool, tmp_path: Path) -> None:
    create = torchvision.models.get_model if library == "torchvision" else timm.create_model
    theirs = randomise(create("resnet18", num_classes=7))
    state = theirs.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    ours = build_backbone("resnet18", 7)
    assert start_from(ours, str(tmp_path / "w.pth")) == []
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours.eval()(images), theirs(images), rtol=1e-5)


def test_other_number_of_classes_keeps_fresh_classifier(tmp_path: Path) -> None:
    theirs = randomise(torchvision.models.resnet18(num_classes=9))
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = build_backbone("resnet18", 4)
    head = ours.head.weight.clone()
    (note,) = start_from(ours, str(tmp_path / "w.safetensors"))
    assert note == f"the classifier is new: {tmp_path / 'w.safetensors'} has none for 4 classes"
    assert torch.equal(ours.head.weight, head)
    assert torch.equal(ours.export_state_dict()["layer4.1.conv2.weight"], theirs.state_dict()["layer4.1.conv2.weight"])


def test_start_from_weights_without_head_bias(tmp_path: Path) -> None:
    def make(classes: int) -> StagedBackbone:
        return StagedBackbone([nn.Conv2d(3, 4, 1)], nn.Linear(4, classes, bias=False), name="plain", head_name="fc")

    theirs, ours, other = make(5), make(5), make(6)
    torch.save(theirs.export_state_dict(), tmp_path / "w.pt")
    assert start_from(ours, str(tmp_path / "w.pt")) == []
    assert torch.equal(ours.head.weight, theirs.head.weight)
    (note,) = start_from(other, str(tmp_path / "w.pt"))
    assert note.startswith("the classifier is new")


def test_start_from_file_without_batch_counters(tmp_path: Path) -> None:
    state = build_backbone("wrn_10_1", 3).export_state_dict()
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "w.pt")
    assert start_from(build_backbone("wrn_10_1", 3), str(tmp_path / "w.pt")) == []


@pytest.mark.parametrize("name", ["wrn_10_1", "densenet_40_12", "hcgnet_a1", "resnet18", "timm/resnet10t"])
def test_branches_start_from_pretrained_weights(name: str, tmp_path: Path) -> None:
    torch.save(randomise(build_backbone(name, 3)).export_state_dict(), tmp_path / "w.pt")  # type: ignore[operator]
    backbone = build_backbone(name, 3, weights=str(tmp_path / "w.pt"))
    method = MixSKD(backbone).eval()
    *aligned, last = method.branches(backbone.feature_maps(torch.randn(2, 3, 64, 64)))
    assert len(aligned) == len(backbone.stages) - 1
    assert last.isfinite().all()
    assert last.std() > 0
    for each in aligned:
        assert torch.equal(each, last)
    trunk = {id(p) for p in backbone.parameters()}
    assert not trunk & {id(p) for p in method.branches.parameters()}


def test_unfitting_weights_are_rejected(tmp_path: Path) -> None:
    backbone = build_backbone("wrn_10_1", 3)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = backbone.export_state_dict()

    def refused(contents: Any, match: str) -> None:
        torch.save(contents, tmp_path / "w.pt")
        with pytest.raises(UserError, match=match):
            start_from(backbone, str(tmp_path / "w.pt"))

    refused({k: v for k, v in state.items() if k != "conv1.weight"}, "not those of a wrn_10_1: they lack conv1.weight")
    refused({**state, "conv9.weight": torch.zeros(1)}, "it has no conv9.weight")
    refused({**state, "conv1.weight": torch.zeros(1)}, r"conv1.weight is \(1,\), not \(16, 3, 3, 3\)")
    refused([1, 2], "holds no state dict")
    refused({"a": "b"}, "holds no state dict")
    with pytest.raises(UserError, match=r"no weights at .*gone"):
        start_from(backbone, str(tmp_path / "gone"))
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:50])
    with pytest.raises(UserError, match="corrupt, or it is not a file of weights"):
        start_from(backbone, str(tmp_path / "w.pt"))
    for damaged in (b"0", b"\x80\x02K", b"\x80\x02cnothing\n", b"\x80\x02X\x01"):  # each ends the unpickler otherwise
        (tmp_path / "w.pt").write_bytes(damaged)
        with pytest.raises(UserError, match="corrupt, or it is not a file of weights"):
            start_from(backbone, str(tmp_path / "w.pt"))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not backbone.pretrained


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"x": Trap()}, tmp_path / "v.pt")
    for name in ("w.pt", "v.pt"):
        with pytest.raises(UserError, match="only tensors are read"):
            start_from(build_backbone("wrn_10_1", 3), name)
    assert not (tmp_path / "sprung").exists()


def test_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = randomise(torchvision.models.resnet18())
    asked: list[str] = []

    def download(url: str, *args: Any, **options: Any) -> dict[str, Tensor]:
        asked.append(url)
        return theirs.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    backbone = build_backbone("resnet18", 5)
    assert start_from(backbone, "pretrained") == ["the classifier is new: pretrained has none for 5 classes"]
    assert asked[0].startswith("https://download.pytorch.org/models/resnet18")
    assert torch.equal(backbone.export_state_dict()["bn1.weight"], theirs.state_dict()["bn1.weight"])

    def no_network(*args: Any, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"cannot get the published weights of resnet18: .*no route to host"):
        start_from(backbone, "pretrained")
    with pytest.raises(UserError, match="there are no published weights of wrn_10_1"):
        start_from(build_backbone("wrn_10_1", 5), "pretrained")


def test_unreachable_hub_is_one_line_without_retries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(UserError, match=r"there is no network \(huggingface\.co does not answer\)"):
        start_from(build_backbone("timm/test_resnet", 5), "pretrained")
    assert capfd.readouterr() == ("", "")
    assert not constants.HF_HUB_OFFLINE


def test_run_uses_normalisation_of_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, create = timm.create_model("test_resnet", num_classes=2), timm.create_model

    def offline(*names: Any, pretrained: bool = False, **options: Any) -> nn.Module:
        return theirs if pretrained else create(*names, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    labels = np.arange(4) % 2
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=noise, train_labels=labels, test_images=noise, test_labels=labels)

    def normalisation(backbone: str, **settings: Any) -> tuple[Any, Any]:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        mixskd.train(
            data=str(tmp_path / "x.npz"), backbone=backbone, method="baseline", out=str(out),
            run={"epochs": 1, "batch_size": 4}, optim={"schedule": "cosine", "warmup_epochs": 0}, **settings,
        )  # fmt: skip
        model = mixskd.load(out)
        return model.mean, model.std

    assert normalisation("timm/test_resnet") == (CIFAR_MEAN, CIFAR_STD)
    assert normalisation("timm/test_resnet", weights="pretrained") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation_of("resnet18") == (IMAGENET_MEAN, IMAGENET_STD)


def test_run_starts_from_another_run_and_resumes_without_it(npz: Path, tmp_path: Path) -> None:
    def train(out: str, epochs: int, **settings: Any) -> dict[str, Any]:
        return mixskd.train(
            data=str(npz), backbone="wrn_10_1", out=str(tmp_path / out), run={"epochs": epochs, "batch_size": 4},
            optim={"schedule": "cosine", "warmup_epochs": 0, "lr": 1e-9, "weight_decay": 0.0}, **settings,
        )  # fmt: skip

    train("first", 1)
    train("second", 1, weights=str(tmp_path / "first"))
    first, second = (mixskd.load(tmp_path / name).state_dict() for name in ("first", "second"))
    assert torch.allclose(first["head.weight"], second["head.weight"], atol=1e-6)
    method = MixSKD(mixskd.load(tmp_path / "first"))
    branch, own = (part.state_dict() for part in (method.branches.alignments[0], method.backbone.stages[1:]))
    assert all(torch.equal(a, b) for a, b in zip(branch.values(), own.values(), strict=True))
    for path in (tmp_path / "first").iterdir():
        path.unlink()
    (tmp_path / "second" / "summary.json").unlink()
    again = train("second", 1, weights=str(tmp_path / "first"), resume=True)
    assert torch.equal(mixskd.load(again["out"]).state_dict()["head.weight"], second["head.weight"])
    (tmp_path / "second" / "summary.json").unlink()
    again = train("second", 1, resume=True)  # the weights are a setting of the run, which need not be given again
    assert torch.equal(mixskd.load(again["out"]).state_dict()["head.weight"], second["head.weight"])
    with pytest.raises(UserError, match=r"holds a run of another configuration: weights .* -> other"):
        train("second", 1, weights="other", resume=True)
    with pytest.raises(UserError, match="no weights at"):
        train("third", 1, weights=str(tmp_path / "first"))


def test_full_disk_is_not_reported_as_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    torch.save({}, tmp_path / "w.pt")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(torch.OutOfMemoryError):
        load_tensors(tmp_path / "w.pt")
