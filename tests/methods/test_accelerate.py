"""A loop of Accelerate takes the same steps as a plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import mixskd

accelerate = pytest.importorskip("accelerate")


def trained(accelerator: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses and the weights of two steps: of a plain loop without an ``accelerator``."""
    torch.manual_seed(0)
    method = mixskd.MixSKD(mixskd.build_backbone("wrn_10_1", num_classes=3))
    whole, optimizer = method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(TensorDataset(torch.randn(8, 3, 16, 16), torch.arange(8) % 3), batch_size=4)
    if accelerator:
        method, optimizer, loader = accelerator.prepare(method, optimizer, loader)
    losses = []
    for images, labels in loader:
        loss = method(images, labels)["loss"]
        accelerator.backward(loss) if accelerator else loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    if accelerator:
        assert accelerator.unwrap_model(method) is whole
    return losses, whole.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_two_steps_are_those_of_a_plain_loop() -> None:
    (losses, weights), (wanted, plain) = trained(accelerate.Accelerator(cpu=True)), trained(None)
    assert losses == wanted
    assert losses[0] != losses[1]
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
