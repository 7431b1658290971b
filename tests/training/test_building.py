"""Batch norm over all processes is the same function of an image once it is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixskd import MixSKD, build_backbone
from mixskd.backbones import StagedBackbone
from mixskd.errors import UserError
from mixskd.methods import Baseline
from mixskd.training.factory import with_sync_bn


@pytest.mark.parametrize("name", ["wrn_10_1", "timm/regnety_002"])
def test_sync_bn_keeps_the_logits_in_evaluation(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    method = MixSKD(build_backbone(name, 5)).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = method.branches.logits(method.backbone, images)
    converted = with_sync_bn(method)
    kinds = {type(module).__name__ for module in converted.modules()}
    assert any(kind.startswith("SyncBatchNorm") for kind in kinds)
    assert not any(kind.startswith("BatchNorm") for kind in kinds)
    logits = converted.branches.logits(converted.backbone, images)
    for head, values in expected.items():
        torch.testing.assert_close(logits[head], values, msg=head)


def test_sync_bn_refuses_norms_with_an_activation() -> None:
    class NormAndAct(nn.BatchNorm2d):
        pass

    stages = [nn.Sequential(nn.Conv2d(3, 4, 1), NormAndAct(4))]
    method = Baseline(StagedBackbone(stages, nn.Linear(4, 5), name="own", head_name="fc"))
    with pytest.raises(UserError, match="cannot convert the layer NormAndAct"):
        with_sync_bn(method)
