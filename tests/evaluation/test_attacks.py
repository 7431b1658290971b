"""FGSM and PGD against foolbox on the same model and batch."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from mixskd.errors import UserError
from mixskd.evaluation.attacks import Space, loss_gradient
from mixskd.evaluation.base import selected
from mixskd.evaluation.suites.fgsm import Fgsm, steps
from mixskd.evaluation.suites.pgd import Pgd
from tests.evaluation.support import MEAN, STD, Toy, batches, context, whole

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # foolbox imports names that SciPy will move
    import foolbox


def theirs(model: Toy) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(
        model, bounds=(0, 1), device="cpu", preprocessing={"mean": MEAN, "std": STD, "axis": -3}
    )


def in_pixels(images: torch.Tensor) -> torch.Tensor:
    return (images * torch.tensor(STD).reshape(3, 1, 1) + torch.tensor(MEAN).reshape(3, 1, 1)).clamp(0, 1)


def test_fgsm_agrees_with_foolbox() -> None:
    model, data, epsilons = Toy(), batches(), (0.003, 0.03, 0.1)
    images, labels = whole(data)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, attacked, success = attack(theirs(model), in_pixels(images), labels, epsilons=list(epsilons))
    result = Fgsm(epsilons)(model, data, context())
    expected = [100 * (1 - float(s.double().mean())) for s in success]
    assert [a["top1"] for a in result["attacks"]] == pytest.approx(expected)
    assert expected[-1] < expected[0]  # so that the comparison says something
    space = Space.of("pixel", context())
    gradient, _ = loss_gradient(model, images, labels)
    for ours, other in zip(steps(images, gradient, epsilons, space), attacked, strict=True):
        assert torch.allclose(space.enter(ours), other, atol=1e-6)


def test_pgd_agrees_with_foolbox() -> None:
    model, data = Toy(), batches()
    images, labels = whole(data)
    attack = foolbox.attacks.LinfPGD(steps=5, rel_stepsize=0.3, random_start=False)
    (attacked,), (success,) = attack(theirs(model), in_pixels(images), labels, epsilons=[0.05])[1:]
    suite = Pgd((0.05,), steps=5, relative_step=0.3, random_start=False, images=0)
    result = suite(model, data, context())
    assert result["attacks"][0]["top1"] == pytest.approx(100 * (1 - float(success.double().mean())))
    space = Space.of("pixel", context())
    ours = suite.attack(model, images, labels, 0.05, space, None)
    assert torch.allclose(space.enter(ours), attacked, atol=1e-5)


def test_clean_accuracy_is_reported_and_normalised_space_is_not_clipped() -> None:
    model, data = Toy(), batches()
    images, labels = whole(data)
    result = Fgsm((0.0, 0.5), space="normalised")(model, data, context())
    clean = 100 * float((model(images).argmax(1) == labels).double().mean())
    assert result["clean_top1"] == pytest.approx(clean) == result["attacks"][0]["top1"]
    moved = images + 0.5 * loss_gradient(model, images, labels)[0].sign()
    expected = 100 * float((model(moved).argmax(1) == labels).double().mean())
    assert result["attacks"][1]["top1"] == pytest.approx(expected)
    assert result["attacks"][0]["fooled"] == 0
    json.dumps(result, allow_nan=False)


def test_pgd_attacks_a_seeded_choice_within_the_ball() -> None:
    model, data = Toy(), batches()
    first = Pgd((0.05,), images=9)(model, data, context(seed=3))
    assert first["images"] == 9
    assert first == Pgd((0.05,), images=9)(model, data, context(seed=3))
    images, labels = whole(data)
    space = Space.of("pixel", context())
    noise = torch.rand(images.shape) * 2 - 1
    attacked = space.enter(Pgd().attack(model, images, labels, 0.02, space, noise))
    assert (attacked - space.enter(images)).abs().max() <= 0.02 + 1e-6
    assert attacked.min() >= -1e-6
    assert attacked.max() <= 1 + 1e-6


def test_selected_images_fill_whole_batches() -> None:
    chosen = torch.arange(24) % 3 == 1
    data = batches(batch=3)
    images, labels = whole(data)
    got = list(selected(data, chosen))
    assert [len(y) for _, y in got] == [3, 3, 2]
    assert torch.equal(whole(got)[0], images[chosen])
    assert torch.equal(whole(got)[1], labels[chosen])
    assert list(selected(data, torch.zeros(24, dtype=torch.bool))) == []
    one = Pgd((0.05,), images=9)(Toy(), data, context())
    assert one == Pgd((0.05,), images=9)(Toy(), batches(batch=10), context())


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        (Fgsm, {"epsilons": ()}, "fgsm.epsilons must be one or more"),
        (Fgsm, {"space": "lab"}, "fgsm.space must be pixel or normalised, not 'lab'"),
        (Pgd, {"epsilons": (-1.0,)}, "pgd.epsilons must be"),
        (Pgd, {"steps": 0}, "pgd.steps must be 1 or above"),
        (Pgd, {"images": -1}, "pgd.images must be 0"),
    ],
)
def test_attacks_reject_bad_options(suite: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        suite(**options)
