"""A copy that answers otherwise is found before it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mixskd
from mixskd.deploy import exporting
from mixskd.deploy.exports import verification
from mixskd.deploy.exports.formats import Options
from mixskd.deploy.exports.verification import check, check_other_size, sample_of, training_images, verify
from mixskd.errors import UserError


def test_images_are_those_of_the_test_split_spread_over_classes(resnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixskd.load(resnet)
    whole = sample_of(resnet, model, None)
    assert (len(whole.pixels), whole.source, whole.real) == (12, "12 images of the split test", True)
    assert whole.pixels.shape[1:] == (3, 72, 72)
    assert whole.pixels.dtype == torch.uint8
    monkeypatch.setattr(verification, "MOST", 3)
    few = sample_of(resnet / "model.safetensors", model, None).pixels
    assert torch.equal(few, whole.pixels[[0, 6, 11]])
    assert len(training_images(resnet, model, None)) == 12


def test_random_images_are_used_and_named_without_data(resnet: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes((resnet / "model.safetensors").read_bytes())
    model = mixskd.load(resnet)
    sample = sample_of(tmp_path / "w.safetensors", model, None)
    assert not sample.real
    assert sample.source.startswith("16 random images (")
    with pytest.raises(UserError, match="there is no data at"):
        sample_of(resnet, model, "no/where")
    with pytest.raises(UserError, match="int8 needs training images"):
        training_images(tmp_path / "w.safetensors", model, None)
    assert sample_of(tmp_path / "w.safetensors", model, str(resnet.parent / "photos")).real


def test_differences_are_measured_and_checked(resnet: Path) -> None:
    model = mixskd.load(resnet)
    sample = sample_of(resnet, model, None)
    same = verify(model, model, sample, Options(), None)
    assert (same.agreement, same.difference, same.images) == (1.0, pytest.approx(0, abs=1e-5), 12)
    check(same, Options(), real=True, force=False)

    def turned(images: Tensor) -> Tensor:
        logits = model(images)
        return torch.where(images.mean((1, 2, 3))[:, None] > 0, logits, logits.roll(1, 1))

    shifted = verify(model, lambda x: model(x) + 0.25, sample, Options(), None)
    assert (shifted.agreement, shifted.difference) == (1.0, pytest.approx(0.25, abs=1e-4))
    with pytest.raises(UserError, match=r"logits of the copy differ \(by 0.25\)"):
        check(shifted, Options(), real=True, force=True)
    for dtype in ("fp16", "int8"):
        check(shifted, Options(dtype=dtype), real=True, force=False)
        other = verify(model, lambda x: -model(x), sample, Options(dtype=dtype), None)
        with pytest.raises(UserError, match="--force writes it anyway"):
            check(other, Options(dtype=dtype), real=True, force=False)
        check(other, Options(dtype=dtype), real=True, force=True)
        check(other, Options(dtype=dtype), real=False, force=False)
        nan = verify(model, lambda x: model(x) * torch.nan, sample, Options(dtype=dtype), None)
        with pytest.raises(UserError, match="are not finite"):
            check(nan, Options(dtype=dtype), real=True, force=True)
    assert verify(model, turned, sample, Options(), None).difference > 0


def test_dynamic_size_is_checked_on_another_size(resnet: Path) -> None:
    model = mixskd.load(resnet)
    check_other_size(model, model, Options("float", dynamic_size=True), None)

    def one_size(images: Tensor) -> Tensor:
        if images.shape[2:] != (72, 72):
            raise RuntimeError("Got invalid dimensions for input: images\nmore")
        return model(images)

    with pytest.raises(UserError, match=r"on images of 104 x 136 px \(Got invalid.*; leave --dynamic-size out"):
        check_other_size(model, one_size, Options("float", dynamic_size=True), None)


def test_a_copy_that_differs_is_not_kept(resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mixskd.deploy.exports import state_dicts

    def damaged(job: object) -> dict[str, Tensor]:
        state = load_file(job.target)  # type: ignore[attr-defined]
        return {**state, "fc.bias": state["fc.bias"] + 1}

    monkeypatch.setattr(state_dicts, "read", damaged)
    with pytest.raises(UserError, match="logits of the copy differ"):
        mixskd.export(resnet, "torchvision", tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_file_is_replaced_only_with_overwrite(resnet: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    mixskd.export(resnet, out=file)
    before = file.read_bytes()
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        mixskd.export(resnet, out=file)
    file.unlink()  # the JSON beside it is still there
    with pytest.raises(UserError, match=r"w\.pth\.json exists already"):
        mixskd.export(resnet, out=file)
    assert mixskd.export(resnet, out=file, overwrite=True).read_bytes() == before
    with pytest.raises(UserError, match="is the model that is exported"):
        mixskd.export(resnet, out=resnet / "model.safetensors", overwrite=True)


def test_stored_temperature_is_used_if_requested(resnet: Path) -> None:
    model = mixskd.load(resnet)
    asked = Options("unit", softmax=True, temperature="stored")
    model.temperature = 2.5
    assert exporting.temperature_of(model, asked) == 2.5
    assert exporting.temperature_of(model, Options("unit", softmax=True)) is None
