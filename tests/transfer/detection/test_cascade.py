"""The three stages by hand on one image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mixskd.transfer.detection.cascade import CascadeConfig, CascadeHeads, PyramidAlign, Stage

TRUTH = torch.tensor([[20.0, 20.0, 60.0, 60.0]])
LABEL = torch.tensor([2])
# IoU with the truth: 0.55 .. 0.75, and none. A box moved to the right by d has (40 - d) / (40 + d).
SHIFTS = [40 * (1 - iou) / (1 + iou) for iou in (0.55, 0.65, 0.75)]
ROIS = torch.tensor([[20 + d, 20.0, 60 + d, 60.0] for d in SHIFTS] + [[80.0, 80.0, 100.0, 100.0]])
SIZES = [(128, 128)]


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 4, 128 // s, 128 // s, generator=generator) for s in (4, 8, 16, 32)]


def heads(**options: object) -> CascadeHeads:
    return CascadeHeads(4, 2, CascadeConfig(hidden=8, rois=16, positives=1.0, **options))  # type: ignore[arg-type]


def set_output(stage: Stage, logits: list[float], deltas: list[float]) -> None:
    """Make ``stage`` give the same ``logits`` and ``deltas`` for every RoI."""
    for layer, bias in ((stage.score, logits), (stage.refine, deltas)):
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.tensor(bias)


@pytest.mark.parametrize(("number", "positives"), [(0, 3), (1, 2), (2, 1)])
def test_each_stage_matches_at_its_own_iou(number: int, positives: int) -> None:
    stage = heads().stages[number]
    assert isinstance(stage, Stage)
    samples = stage.sample(ROIS, TRUTH, LABEL)
    assert samples.labels.tolist() == [0] * (3 - positives) + [2] * positives + [0, 2]
    assert samples.is_truth.tolist() == [False] * 4 + [True]
    assert torch.equal(samples.targets[samples.labels > 0], TRUTH.expand(positives + 1, 4))


@pytest.mark.parametrize(("number", "std"), [(0, (0.1, 0.2)), (1, (0.05, 0.1)), (2, (0.033, 0.067))])
def test_each_stage_encodes_with_its_own_deviations(number: int, std: tuple[float, float]) -> None:
    stage = heads().stages[number]
    assert isinstance(stage, Stage)
    roi = torch.tensor([[10.0, 20.0, 60.0, 40.0]])
    expected = [5 / 50 / std[0], 10 / 20 / std[0], math.log(40 / 50) / std[1], math.log(40 / 20) / std[1]]
    torch.testing.assert_close(stage.coder.encode_single(TRUTH, roi)[0].tolist(), expected, rtol=1e-4, atol=1e-5)
    (moved,) = stage.refined(torch.tensor([expected]), [roi], SIZES)
    torch.testing.assert_close(moved, TRUTH, rtol=1e-4, atol=1e-3)


def test_a_quarter_of_the_sampled_rois_is_positive() -> None:
    stage = CascadeHeads(4, 2, CascadeConfig(hidden=8, rois=8)).stages[0]
    assert isinstance(stage, Stage)
    rois = torch.cat([ROIS[2:3].expand(20, 4), ROIS[3:].expand(20, 4)])
    samples = stage.sample(rois, TRUTH, LABEL)
    assert sorted(samples.labels.tolist()) == [0] * 6 + [2] * 2


def test_losses_and_refined_boxes_of_three_stages_match_a_manual_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    net = heads()
    seen = []
    original = Stage.sample

    def watched(self: Stage, rois: Tensor, boxes: Tensor, labels: Tensor) -> object:
        seen.append(rois)
        return original(self, rois, boxes, labels)

    monkeypatch.setattr(Stage, "sample", watched)
    logits = [[0.5, -1.0, 0.25], [0.0, 1.0, 2.0], [1.5, 0.0, -0.5]]
    # Stage 1 moves a RoI left by 0.1 of its width, stage 2 down by 0.05 of its height, stage 3 not at all.
    deltas = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0] * 4]
    for stage, a, b in zip(net.stages, logits, deltas, strict=True):
        assert isinstance(stage, Stage)
        set_output(stage, a, b)
    terms = net.losses(maps(), [ROIS], [{"boxes": TRUTH, "labels": LABEL}], SIZES)

    rois = ROIS.double()
    for number, (std, iou, weight) in enumerate(
        zip(((0.1, 0.2), (0.05, 0.1), (0.033, 0.067)), (0.5, 0.6, 0.7), (1, 0.5, 0.25), strict=True)
    ):
        torch.testing.assert_close(seen[number].double(), rois, rtol=1e-4, atol=1e-4)  # without the ground truth
        score, box = by_hand(torch.cat([rois, TRUTH.double()]), logits[number], deltas[number], std, iou)
        torch.testing.assert_close(terms[f"stage{number + 1}_class"].double(), weight * score, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(terms[f"stage{number + 1}_box"].double(), weight * box, rtol=1e-4, atol=1e-5)
        width, height = rois[:, 2] - rois[:, 0], rois[:, 3] - rois[:, 1]
        dx, dy = deltas[number][0] * std[0] * width, deltas[number][1] * std[0] * height
        rois = (rois + torch.stack([dx, dy, dx, dy], 1)).clamp(0, 128)


def by_hand(
    rois: Tensor, logits: list[float], deltas: list[float], std: tuple[float, float], iou: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and smooth L1 of one stage that says the same for all ``rois``, in plain loops."""
    z = sum(math.exp(v) for v in logits)
    score, box = 0.0, 0.0
    x1, y1, x2, y2 = TRUTH[0].tolist()
    for a, b, c, d in rois.tolist():
        common = max(min(c, x2) - max(a, x1), 0) * max(min(d, y2) - max(b, y1), 0)
        overlap = common / ((c - a) * (d - b) + (x2 - x1) * (y2 - y1) - common)
        label = 2 if overlap >= iou else 0
        score -= math.log(math.exp(logits[label]) / z)
        if label:
            target = [
                ((x1 + x2) / 2 - (a + c) / 2) / (c - a) / std[0], ((y1 + y2) / 2 - (b + d) / 2) / (d - b) / std[0],
                math.log((x2 - x1) / (c - a)) / std[1], math.log((y2 - y1) / (d - b)) / std[1],
            ]  # fmt: skip
            for t, p in zip(target, deltas, strict=True):
                box += 0.5 * (t - p) ** 2 if abs(t - p) < 1 else abs(t - p) - 0.5
    return torch.tensor(score / len(rois)).double(), torch.tensor(box / len(rois)).double()


def test_scores_are_averaged_and_boxes_come_from_the_last_stage() -> None:
    net = heads(score=0.2).eval()
    logits = torch.tensor([[0.0, 1.0, 3.0], [0.5, 0.0, 1.0], [1.0, 0.0, -1.0]])
    deltas = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0] * 4]
    for stage, a, b in zip(net.stages, logits.tolist(), deltas, strict=True):
        assert isinstance(stage, Stage)
        set_output(stage, a, b)
    (found,) = net.detect(maps(), [TRUTH], SIZES)
    mean = logits.mean(0).softmax(0)
    kept = [label for label in (2, 1) if mean[label] > 0.2]
    assert found["labels"].tolist() == kept
    torch.testing.assert_close(found["scores"], mean[kept])
    torch.testing.assert_close(found["boxes"][0], torch.tensor([16.0, 22.0, 56.0, 62.0]), rtol=1e-5, atol=1e-4)


def test_image_without_objects_trains_the_background_only() -> None:
    terms = heads().losses(maps(), [ROIS], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}], SIZES)
    assert all(terms[f"stage{k}_box"] == 0 for k in (1, 2, 3))
    sum(terms.values()).backward()  # type: ignore[union-attr]


def test_no_proposals_give_no_detections() -> None:
    net = heads().eval()
    (found,) = net.detect(maps(), [torch.zeros(0, 4)], SIZES)
    assert found["boxes"].shape == (0, 4)


def test_each_roi_is_pooled_from_the_level_of_its_size() -> None:
    flat = [torch.full((2, 1, 256 // s, 256 // s), float(s)) for s in (4, 8, 16, 32)]
    sizes = torch.tensor([20.0, 60.0, 111.0, 113.0, 223.0, 225.0])
    rois = torch.stack([torch.zeros(6), torch.zeros(6), sizes, sizes], 1)
    pooled = PyramidAlign()(flat, [rois[:3], rois[3:]])
    assert pooled.shape == (6, 1, 7, 7)
    assert pooled[:, 0, 3, 3].tolist() == [4, 4, 4, 8, 8, 16]


def test_pooling_a_linear_map_gives_its_values_at_bin_centres() -> None:
    x = (
        torch.arange(32.0)[None, None, None, :].expand(1, 1, 32, 32) * 4 + 2
    )  # the x of each pixel's centre in the image
    roi = torch.tensor([[16.0, 16.0, 16 + 56.0, 16 + 56.0]])
    pooled = PyramidAlign()([x, x, x, x], [roi])
    torch.testing.assert_close(pooled[0, 0, 0], 16 + 8 * (torch.arange(7.0) + 0.5), rtol=1e-5, atol=1e-4)
