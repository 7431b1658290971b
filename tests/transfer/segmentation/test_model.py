from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.segmentation import deeplabv3_resnet50

from mixskd.backbones import build_backbone
from mixskd.errors import UserError
from mixskd.transfer.segmentation.config import DeepLabConfig
from mixskd.transfer.segmentation.loading import SegmentationImages, augmentation, train_batch
from mixskd.transfer.segmentation.model import DeepLabV3, SegmentationMethod, dilate, pixel_loss
from mixskd.transfer.segmentation.sources import load_segmentation
from tests.transfer.detection.support import tiny_backbone
from tests.transfer.segmentation.support import write


def images(size: int = 64) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_resnet18_matches_timm(stride: int) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet18", num_classes=2, output_stride=stride).eval()
    ours = build_backbone("resnet18", 2)
    ours.load_export_state_dict(theirs.state_dict())
    dilate(ours.eval(), stride)
    with torch.inference_mode():
        last = ours.feature_maps(images())[-1]
        torch.testing.assert_close(last, theirs.forward_features(images()), rtol=1e-4, atol=1e-4)
    assert last.shape[-1] == 64 // stride


@pytest.mark.parametrize(("stride", "replace"), [(8, [False, True, True]), (16, [False, False, True])])
def test_dilated_resnet50_matches_torchvision(stride: int, replace: list[bool]) -> None:
    theirs = resnet50(num_classes=2, replace_stride_with_dilation=replace).eval()
    ours = build_backbone("resnet50", 2)
    ours.load_export_state_dict(theirs.state_dict())
    dilate(ours.eval(), stride)
    theirs.avgpool = theirs.fc = torch.nn.Identity()
    with torch.inference_mode():
        maps = ours.feature_maps(images())
        torch.testing.assert_close(maps[-1].flatten(1), theirs(images()), rtol=1e-4, atol=1e-4)
    assert [one.shape[-1] for one in maps] == [16, 8, 4 if stride == 16 else 8, 64 // stride]


def test_timm_backbone_can_be_dilated(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    backbone = build_backbone("timm/resnet18", 2)
    dilate(backbone, 8)
    assert backbone.feature_maps(images())[-1].shape[-1] == 8


def test_backbone_that_cannot_be_dilated_is_refused() -> None:
    with pytest.raises(UserError, match="8, 16 or 32, not 4"):
        dilate(build_backbone("resnet18", 2), 4)
    with pytest.raises(UserError, match="strides 1, 2, 4, 8"):
        dilate(build_backbone("cifar_resnet18", 2), 8)
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"cannot be dilated; --method.output-stride 32 uses it as it is"):
        dilate(build_backbone("timm/resnet18d", 2), 8)


def test_torchvision_weights_give_torchvision_logits() -> None:
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    ours = DeepLabV3(build_backbone("resnet50", 2), 21, DeepLabConfig(head="torchvision")).eval()
    state = theirs.state_dict()
    shapes = {key: value.shape for key, value in ours.export_state_dict().items()}
    assert shapes == {key: value.shape for key, value in state.items()}
    ours.load_export_state_dict(state)
    with torch.inference_mode():
        expected = theirs(images())
        logits, aux = ours.both(images())
        torch.testing.assert_close(logits, expected["out"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(aux, expected["aux"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(images()), logits)
    with pytest.raises(RuntimeError, match="keys differ"):
        ours.load_export_state_dict({**state, "more": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="shapes differ"):
        ours.load_export_state_dict({**state, "classifier.4.bias": torch.zeros(3)})


def test_paper_head_has_512_channels_and_rates_by_stride() -> None:
    with torch.device("meta"):
        for stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18))):
            net = DeepLabV3(build_backbone("resnet50", 2), 19, DeepLabConfig(output_stride=stride))
            convolutions = [m for m in net.classifier.modules() if isinstance(m, torch.nn.Conv2d)]
            assert tuple(c.dilation[0] for c in convolutions if c.dilation != (1, 1)) == rates
            assert {c.out_channels for c in convolutions} == {512, 19}
            assert net.aux_classifier is not None
            assert net.aux_classifier[0].weight.shape == (256, 1024, 3, 3)


def test_auxiliary_loss_has_its_weight() -> None:
    net = DeepLabV3(tiny_backbone(), 3, DeepLabConfig(head="torchvision", aux=0.4)).eval()
    masks = torch.randint(3, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    masks[:, :20] = 255
    x = torch.cat([images(), images().flip(3)])
    terms = net.losses(x, masks)
    logits, aux = net.both(x)
    assert aux is not None
    for name, found, weight in (("pixel", logits, 1.0), ("aux", aux, 0.4)):
        log = found.double().log_softmax(1).permute(0, 2, 3, 1)[masks < 255]
        expected = -log.gather(1, masks[masks < 255][:, None]).mean() * weight
        torch.testing.assert_close(terms[name].double(), expected, rtol=1e-4, atol=1e-5)
    assert DeepLabV3(tiny_backbone(), 3, DeepLabConfig(aux=0)).aux_classifier is None


def test_batch_of_ignored_pixels_has_zero_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_deeplabv3_overfits_three_images(tmp_path: Path) -> None:
    split = load_segmentation(write(tmp_path, (64, 64)))["train"]
    data = SegmentationImages(split, augmentation(64, (0.5,) * 3, (0.25,) * 3, (1.0,), flip=False))
    batch = train_batch([data[(i, 0)] for i in range(3)])
    method = SegmentationMethod(tiny_backbone(), 3, DeepLabConfig(head="torchvision"))
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for _ in range(25):
        method(batch.images, batch.labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    counted = batch.labels < 255
    assert (method.backbone(batch.images).argmax(1) == batch.labels)[counted].float().mean() > 0.93


def test_pixels_are_summed_outside_the_loss_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's nll_loss2d is deterministic only without a reduction."""
    reductions, original = [], torch.nn.functional.cross_entropy

    def recorded(*arguments: Tensor, reduction: str, **options: int) -> Tensor:
        reductions.append(reduction)
        return original(*arguments, reduction=reduction, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", recorded)
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    torch.testing.assert_close(pixel_loss(logits, masks), original(logits, masks))
    assert reductions == ["none"]
