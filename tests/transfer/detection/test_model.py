from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mixskd.backbones import build_backbone
from mixskd.errors import UserError
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.detection.model import Detector, FloorMatcher, make_rpn
from tests.transfer.detection.support import tiny_backbone

ARCHITECTURES = ("cascade_rcnn", "faster_rcnn")
TARGETS = [
    {"boxes": torch.tensor([[10.0, 10, 50, 60]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]
SIZES = [(96, 96), (80, 64)]


def detector(architecture: str = "cascade_rcnn", *, frozen: bool | None = True) -> Detector:
    return Detector(
        tiny_backbone(), 3, DetectorConfig(channels=16, hidden=16, frozen=frozen), architecture=architecture
    )


def images() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_and_gradients_are_finite_with_an_empty_image(architecture: str) -> None:
    net = detector(architecture)
    terms = net.losses(images(), SIZES, TARGETS)
    assert {"rpn_class", "rpn_box"} < terms.keys()
    assert len(terms) == (8 if architecture == "cascade_rcnn" else 4)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    missing = {name for name, p in net.named_parameters() if p.requires_grad and p.grad is None}
    assert not missing
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_frozen_backbone_keeps_first_stage_and_norm_statistics() -> None:
    net = detector().train()
    body = net.backbone.body
    before = {name: value.clone() for name, value in body.state_dict().items()}
    sum(net.losses(images(), SIZES, TARGETS).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in body.stages[0].parameters())
    assert all(p.grad is not None for stage in list(body.stages)[1:] for p in stage.parameters())
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert not any(m.training for m in body.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("frozen", [False, None])  # None: its weights are random
def test_without_frozen_everything_is_trained(frozen: bool | None) -> None:
    net = detector(frozen=frozen).train()
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_detections_are_inside_the_image(architecture: str) -> None:
    net = detector(architecture).eval()
    with torch.inference_mode():
        found = net(images(), SIZES)
    for detection, (height, width) in zip(found, SIZES, strict=True):
        boxes = detection["boxes"]
        assert boxes.shape == (len(detection["scores"]), 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()


def test_backbone_of_other_strides_is_refused() -> None:
    with pytest.raises(UserError, match=r"cifar_resnet18 has maps of strides 1, 2, 4, 8.*resnet50"):
        Detector(build_backbone("cifar_resnet18", 2), 3)


def resnet50_parameters() -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Detector(build_backbone("resnet50", 2), 80).parameters())


def test_cascade_on_resnet50_has_the_published_number_of_parameters() -> None:
    # Backbone 23.508 M, FPN 3.344 M, RPN 0.594 M, three stages of 13.896 M + (81 + 4) x 1025.
    stages = 3 * (256 * 49 * 1024 + 1024 + 1024 * 1024 + 1024 + 85 * 1025)
    rpn = 9 * 256 * 256 + 256 + 257 * (3 + 12)
    fpn = 256 * (256 + 512 + 1024 + 2048) + 4 * 256 + 4 * (9 * 256 * 256 + 256)
    assert resnet50_parameters() == 23_508_032 + fpn + rpn + stages


@pytest.mark.parametrize(("best", "expected"), [(0.31, 0), (0.29, -1)])
def test_best_anchor_of_a_box_needs_an_iou_of_0_3(best: float, expected: int) -> None:
    quality = torch.tensor([[0.1, best, 0.2, 0.0], [0.0, 0.0, 0.0, 0.9]])
    matches = FloorMatcher(0.7, 0.3, allow_low_quality_matches=True)(quality)
    assert matches[1] == expected
    assert matches[3] == 1
    assert matches[0] == -1


def test_each_level_has_anchors_of_one_size_and_three_ratios() -> None:
    cells = make_rpn(16).anchor_generator.cell_anchors
    for stride, cell in zip((4, 8, 16, 32, 64), cells, strict=True):
        width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
        torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]), rtol=0.05, atol=0)
        torch.testing.assert_close((width * height).sqrt(), torch.full((3,), 8.0 * stride), rtol=0.02, atol=0)


@pytest.mark.parametrize("border", [0, 4, -1])
def test_anchors_beyond_the_border_are_not_trained_on(border: int) -> None:
    rpn = make_rpn(16, border=border)
    anchors = torch.tensor(
        [[0.0, 0, 30, 30], [-1, 0, 30, 30], [60, 40, 63, 49], [60, 40, 64, 49], [0, 0, 30, 50], [-4, -4, 67, 53]]
    )
    target = {"boxes": torch.tensor([[-1.0, 0, 30, 30]]), "labels": torch.tensor([1]), "size": torch.tensor([50, 64])}
    (labels,), (boxes,) = rpn.assign_targets_to_anchors([anchors], [target])
    trained = {0: [0, 2], 4: [0, 1, 2, 3, 4, 5], -1: [0, 1, 2, 3, 4, 5]}[border]
    assert labels[[0, 2]].tolist() == [1, 0]
    assert [i for i, label in enumerate(labels.tolist()) if label >= 0 or (border and i == 4)] == trained
    assert torch.equal(boxes[0], target["boxes"][0])


def test_image_that_no_anchor_fits_into_trains_on_all_anchors() -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1]), "size": torch.tensor([10, 10])}
    (labels,), _ = make_rpn(16).assign_targets_to_anchors([torch.tensor([[-9.0, -9, 9, 9], [0, 0, 11, 9]])], [target])
    assert labels.tolist() == [0, 1]
