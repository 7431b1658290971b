"""The moving average against its definition."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixskd.training.averaging import MovingAverage


def make(device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)


def test_average_of_weights_statistics_and_counters() -> None:
    model, decay = make(), 0.9
    average = MovingAverage(model, decay)
    expected: dict[str, torch.Tensor] = {}
    for step in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        model(torch.randn(8, 3))
        average.update_parameters(model)
        for name, value in copy.deepcopy(model.state_dict()).items():
            if step == 0 or not value.is_floating_point():
                expected[name] = value.double()
            else:
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.module.state_dict().items():
        assert torch.allclose(value.double(), expected[name], rtol=1e-5, atol=1e-6), name
    assert average.module[1].num_batches_tracked.item() == 4


class Launches(TorchDispatchMode):
    """The names of the operations that change tensors, as a GPU would be sent them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norms", [0, 1, 5])
def test_average_takes_two_launches(norms: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), *(nn.BatchNorm1d(4) for _ in range(norms)))
    average = MovingAverage(model, 0.9)
    average.update_parameters(model)
    with Launches() as launches:
        average.update_parameters(model)
    copies = ["_foreach_copy_"] if norms else []
    assert launches.names == ["_foreach_lerp_", *copies, "add_"], "the last is torch's count, on the host"


@pytest.mark.gpu
def test_average_does_not_wait_for_cuda() -> None:
    model = make("cuda")
    average = MovingAverage(model, 0.9)
    average.update_parameters(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is experimental
        torch.cuda.set_sync_debug_mode("error")
    try:
        average.update_parameters(model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
