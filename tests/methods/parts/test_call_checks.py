"""Labels that a method cannot use are refused in one line, in a training loop of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixskd import CSKD, Baseline, MixSKD, Mixup, UserError
from mixskd.methods import Method
from mixskd.methods.parts.call_checks import check_labels
from tests.conftest import make_toy

IMAGES, LABELS = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 4, 2])  # of five classes
WRONG: list[Any] = [
    pytest.param(torch.eye(4)[[0, 1, 3, 2]], r"not torch.float32 of shape \(4, 4\)$", id="other-classes"),
    pytest.param(LABELS.float(), r"torch.int64 of shape \(4,\), not torch.float32 .*give labels.long\(\)", id="float"),
    pytest.param(LABELS.int(), r"not torch.int32 of shape \(4,\); give labels.long\(\)", id="int32"),
    pytest.param(LABELS[:, None], r"not torch.int64 of shape \(4, 1\)$", id="column"),
    pytest.param(LABELS[:3], r"torch.int64 of shape \(4,\), not torch.int64 of shape \(3,\)$", id="too-few"),
    pytest.param(LABELS + 1, "from 0 to 4, since the network has 5 classes; these are from 1 to 5", id="from-one"),
    pytest.param(LABELS - 1, "these are from -1 to 3", id="negative"),
    pytest.param(LABELS.tolist(), "a tensor of class indices, not list", id="list"),
]


@pytest.mark.parametrize("kind", [Baseline, MixSKD, Mixup, CSKD])
@pytest.mark.parametrize(("labels", "message"), WRONG)
def test_wrong_labels_raise_one_line_error(kind: type[Method], labels: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        kind(make_toy())(IMAGES, labels, partners=IMAGES[:, None])
    assert "\n" not in str(caught.value)


def test_labels_by_keyword_and_missing_labels() -> None:
    method = Baseline(make_toy())
    assert method(images=IMAGES, labels=LABELS)["loss"] > 0
    with pytest.raises(UserError, match="labels must be class indices"):
        method(IMAGES, labels=LABELS.float())
    with pytest.raises(TypeError, match="labels"):
        method(IMAGES)


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_label_values_on_device_are_not_read(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LABELS.to(device)
    monkeypatch.setattr(Tensor, "numpy", lambda *_: pytest.fail("the host waits for the device"))
    check_labels(labels, 4, 5)
    with pytest.raises(UserError, match=r"not torch\.float32"):
        check_labels(labels.float(), 4, 5)


def test_compiled_method_is_one_graph_and_checks_labels() -> None:
    method = torch.compile(Baseline(make_toy()), backend="eager", fullgraph=True, dynamic=False)
    assert method(IMAGES, LABELS)["loss"] > 0
    method = torch.compile(Baseline(make_toy()), backend="eager")
    with pytest.raises(UserError, match="labels must be class indices"):
        method(IMAGES, LABELS.float())
