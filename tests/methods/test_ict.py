"""Interpolation consistency: the loss in each form, its moving average, and the share that the teacher sees."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mixskd import ICT, UserError
from mixskd.config import OptimConfig
from mixskd.data.batch import Batch
from mixskd.methods.parts.averaging import average_statistics
from mixskd.methods.parts.mixing import Mix
from mixskd.training.engine import Engine
from mixskd.training.step import build_step
from tests.conftest import make_toy
from tests.methods.reference import kl, soft_cross_entropy, softmax
from tests.methods.support import batch, check, logits

LAM, TEMPERATURE = 0.3, 2.0


def make(**options: object) -> ICT:
    """With another teacher than the network, whose batch norms have statistics of their own."""
    method = ICT(make_toy(), temperature=TEMPERATURE, warmup=0.5, **options).double()
    teacher = make_toy()
    teacher(torch.randn(16, 3, 8, 8, dtype=torch.float64))
    method.teacher.load_state_dict(teacher.state_dict())
    return method


def mixed(x: list[float], y: list[float]) -> list[float]:
    return [LAM * a + (1 - LAM) * b for a, b in zip(x, y, strict=True)]


def last_map(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    for stage in network.stages:
        images = stage(images)
    return images


@pytest.mark.parametrize("consistency", ["logits", "probabilities", "squared"])
@pytest.mark.parametrize(("share", "permutation"), [(1.0, [2, 0, 3, 1]), (0.5, [1, 0, 3, 2])])
def test_the_loss_in_each_form(consistency: str, share: float, permutation: list[int]) -> None:
    images, labels = batch()
    seen = round(4 * share)
    mixes = torch.stack([LAM * images[i] + (1 - LAM) * images[j] for i, j in enumerate(permutation)])

    def reference(moving, fixed) -> float:
        z = logits(moving.backbone, mixes).tolist()
        t = logits(fixed.teacher, images[:seen]).tolist()
        loss = 0.0
        for i, j in enumerate(permutation):
            y = [LAM * (n == int(labels[i])) + (1 - LAM) * (n == int(labels[j])) for n in range(5)]
            loss += soft_cross_entropy(z[i], y) / 4
        for i, j in enumerate(permutation[:seen]):
            if consistency == "logits":
                term = kl(z[i], mixed(t[i], t[j]), TEMPERATURE)
            elif consistency == "probabilities":
                q = mixed(softmax(t[i], TEMPERATURE), softmax(t[j], TEMPERATURE))
                log_q = torch.tensor(q).log().mul(TEMPERATURE).tolist()  # logits of the same distribution
                term = kl(z[i], log_q, TEMPERATURE)
            else:
                pairs = zip(softmax(z[i]), softmax(mixed(t[i], t[j])), strict=True)
                term = sum((a - b) ** 2 for a, b in pairs) / 5
            loss += 0.6 * 0.7 * term / seen
        return loss

    method = make(consistency=consistency, weight=0.7, teacher_share=share)
    mix = Mix(torch.tensor(LAM, dtype=torch.float64), torch.tensor(permutation))
    progress = torch.tensor(0.3, dtype=torch.float64)  # of a warm-up of one half: 0.6 of the weight
    check(method, reference, images, labels, mix, progress=progress)


def test_the_maps_are_compared_with_the_mix_of_the_teachers() -> None:
    images, labels = batch()
    permutation = [2, 0, 3, 1]
    mixes = LAM * images + (1 - LAM) * images[permutation]

    def reference(moving, fixed) -> float:
        z, student, teacher = (
            logits(moving.backbone, mixes).tolist(), last_map(moving.backbone, mixes), last_map(fixed.teacher, images)
        )  # fmt: skip
        target = LAM * teacher + (1 - LAM) * teacher[permutation]
        distance = (student - target).square().mean() / ((student.square().mean() + target.square().mean()) / 2)
        hard = 0.0
        for i, j in enumerate(permutation):
            y = [LAM * (n == int(labels[i])) + (1 - LAM) * (n == int(labels[j])) for n in range(5)]
            hard += soft_cross_entropy(z[i], y) / 4
        return hard + 2.0 * float(distance)

    mix = Mix(torch.tensor(LAM, dtype=torch.float64), torch.tensor(permutation))
    check(make(weight=0.0, feature=2.0), reference, images, labels, mix, progress=torch.tensor(1.0))


def test_the_teacher_is_the_mean_of_the_first_weights_and_then_their_moving_average() -> None:
    method = ICT(make_toy(), decay=0.75, warmup=0.0).double()
    step = build_step(method, OptimConfig(lr=0.05), torch.device("cpu"), Engine())
    expected: dict[str, torch.Tensor] = {}
    for t in range(1, 7):
        images, labels = batch()
        step(Batch(images, labels, {}), 0.05, seed=t)
        weight = max(1 / t, 0.25)
        for name, x in method.backbone.state_dict().items():
            old = expected.get(name, x)
            expected[name] = (1 - weight) * old + weight * x if x.is_floating_point() else x
        for name, x in method.teacher.state_dict().items():
            torch.testing.assert_close(x, expected[name], msg=name)
    assert not any(module.training for module in method.train().teacher.modules())
    assert method.backbone.training


def test_pairs_stay_within_the_share_that_the_teacher_sees() -> None:
    method = ICT(make_toy(), teacher_share=0.25)
    permutation = method.draw(torch.zeros(16, 3, 4, 4)).permutation
    assert sorted(permutation[:4].tolist()) == [0, 1, 2, 3]
    assert sorted(permutation[4:].tolist()) == list(range(4, 16))


def test_statistics_of_several_processes_become_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    network, other = make_toy(), make_toy()
    for net in (network, other):
        net(torch.randn(8, 3, 8, 8, dtype=torch.float64))
    before, theirs = copy.deepcopy(network.state_dict()), other.state_dict()
    statistics = [x.flatten() for x in other.buffers() if x.is_floating_point()]
    gather = "mixskd.methods.parts.averaging.gather_batch"
    monkeypatch.setattr(gather, lambda x: torch.cat([x, torch.cat(statistics)[None]]))
    average_statistics(network)
    for name, x in network.state_dict().items():
        shared = name.endswith(("running_mean", "running_var"))
        torch.testing.assert_close(x, (before[name] + theirs[name]) / 2 if shared else before[name])


def test_options_that_cannot_work() -> None:
    with pytest.raises(UserError, match="teacher_share"):
        ICT(make_toy(), teacher_share=0.0)
