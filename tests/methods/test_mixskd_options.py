"""MixSKD's options beyond the paper, against the reference: beta's warm-up, the relative distance, smoothing, light."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from mixskd import MixSKD, UserError
from mixskd.benchmarking.cost import count_cost
from mixskd.config.build import SMOOTHED, build_experiment, make_config
from mixskd.methods import METHODS
from mixskd.methods.mixskd import MixSKDConfig
from mixskd.methods.parts.losses import feature_distance, relative_distance
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods import reference
from tests.methods.support import batch, check
from tests.methods.test_mixskd import reference_terms, setup


def flat(nested: list | float) -> list[float]:
    return [nested] if isinstance(nested, float) else [x for part in nested for x in flat(part)]


def test_relative_distance_divides_by_mean_square() -> None:
    a, b = (torch.randn(3, 4, 2, 2, dtype=torch.float64) for _ in range(2))
    total, count = reference.squared_distance(a.tolist(), b.tolist())
    energy = sum(x * x for x in flat([a.tolist(), b.tolist()])) / (2 * count)
    assert relative_distance(a, b).item() == pytest.approx(total / count / energy, rel=1e-12)


def test_relative_distance_ignores_common_scale() -> None:
    a, b = (torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for scale in (1e-3, 1.0, 1e3):
        assert relative_distance(scale * a, scale * b).item() == pytest.approx(relative_distance(a, b).item())
    slopes = []
    for distance in (relative_distance, feature_distance):
        gradients = torch.autograd.grad(distance(a, b), [a, b])
        slopes.append(sum(float((g * x.detach()).sum()) for g, x in zip(gradients, (a, b), strict=True)))
    assert slopes[0] == pytest.approx(0, abs=1e-12)
    assert slopes[1] == pytest.approx(2 * feature_distance(a, b).item())


def test_relative_distance_of_zero_maps_is_zero() -> None:
    a = torch.zeros(2, 3, 1, 1, requires_grad=True)
    relative_distance(a, a * 1.0).backward()
    assert a.grad is not None
    assert not a.grad.any()


@pytest.mark.parametrize(("progress", "share"), [(0.1, 0.4), (0.25, 1.0), (1.0, 1.0)])
def test_beta_warmup_follows_progress(progress: float, share: float) -> None:
    method, images, labels, mix = setup(beta=2.0, beta_warmup=0.25)
    expected = reference_terms(method, images, labels, mix)
    out = method(images, labels, mix, progress=torch.tensor(progress, dtype=torch.float64))
    total = sum(expected.values()) + (2.0 * share - 1) * expected["feature"]
    assert out["loss"].item() == pytest.approx(total, rel=1e-9)
    assert out["feature"].item() == pytest.approx(expected["feature"], rel=1e-9)
    assert method.needs.progress
    with pytest.raises(UserError, match="needs progress"):
        method(images, labels, mix)


def test_only_preset_stable_needs_progress() -> None:
    assert not MixSKD(make_toy()).needs.progress
    stable = make_config(MixSKDConfig, {"preset": "stable"})
    assert dataclasses.replace(stable, preset="paper", feature_distance="squared", beta_warmup=0.0) == MixSKDConfig()
    assert MixSKD(make_toy(), config=stable).needs.progress


def test_preset_light_has_no_branches_or_discriminators() -> None:
    method = MixSKD(make_toy(), config=make_config(MixSKDConfig, {"preset": "light"})).double()
    images, labels = batch()
    lam, permutation = 0.3, [2, 0, 3, 1]
    mixed = torch.stack([lam * images[i] + (1 - lam) * images[j] for i, j in enumerate(permutation)])

    def terms(moving) -> dict[str, float]:
        x = torch.cat([images, mixed])
        for stage in moving.backbone.stages:
            x = stage(x)
        head, teacher = moving.backbone.head, moving.self_teacher
        zeros = ([[0.0] * x.shape[1]], [0.0], [[0.0]], [0.0])  # the discriminator that light leaves out
        return reference.terms(
            [x[:4].tolist()], [x[4:].tolist()], labels.tolist(), lam, permutation,
            [(head.weight.tolist(), head.bias.tolist())],
            (teacher.projection.weight.tolist(), teacher.classifier.weight.tolist(), teacher.classifier.bias.tolist()),
            [zeros], method.config.temperature,
        )  # fmt: skip

    expected = terms(method)
    out = method(images, labels, Mix(torch.tensor(lam, dtype=torch.float64), torch.tensor(permutation)))
    named = ("cls", "cls_mix", "feature", "teacher_cls", "teacher_logit")
    assert set(out) == {"loss", "output", *named}
    for name in named:
        assert out[name].item() == pytest.approx(expected[name], rel=1e-9), name
    assert out["loss"].item() == pytest.approx(sum(expected[name] for name in named), rel=1e-9)
    assert list(method.heads(images)) == ["backbone"]
    out["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def smoothed(z: list[float], target: list[float], epsilon: float) -> float:
    return reference.soft_cross_entropy(z, [(1 - epsilon) * t + epsilon / len(z) for t in target])


@pytest.mark.parametrize("name", ["mixup", "cutmix", "regmixup"])
def test_label_smoothing_of_mixed_labels(name: str) -> None:
    images, labels = batch()
    lam, permutation = 0.3, [2, 0, 3, 1]
    mixed = torch.stack([lam * images[i] + (1 - lam) * images[j] for i, j in enumerate(permutation)])

    def reference_loss(moving, fixed) -> float:
        x = torch.cat([images, mixed]) if name == "regmixup" else mixed
        z, loss = moving.backbone(x).tolist(), 0.0
        for i, j in enumerate(permutation):
            hard = [float(n == int(labels[i])) for n in range(5)]
            target = [lam * h + (1 - lam) * (n == int(labels[j])) for n, h in enumerate(hard)]
            loss += smoothed(z[i - 4], target, 0.2) / 4
            loss += smoothed(z[i], hard, 0.2) / 4 if name == "regmixup" else 0
        return loss

    mix = Mix(torch.tensor(lam, dtype=torch.float64), torch.tensor(permutation))
    check(METHODS[name](make_toy(), label_smoothing=0.2), reference_loss, images, labels, mix)


def test_mixskd_label_smoothing_changes_only_cross_entropies() -> None:
    method, images, labels, mix = setup()
    plain = method(images, labels, mix)
    object.__setattr__(method.config, "label_smoothing", 0.2)
    out = method(images, labels, mix)
    x = torch.cat([images, mix(images)])
    maps = method.branches(method.backbone.feature_maps(x))
    heads = [*method.branches.heads, method.backbone.head]
    expected = 0.0
    for head, f in zip(heads, maps, strict=True):
        for z, y in zip(head(f[:4].mean((2, 3))).tolist(), labels.tolist(), strict=True):
            expected += smoothed(z, [float(n == y) for n in range(5)], 0.2) / 4
    assert out["cls"].item() == pytest.approx(expected, rel=1e-9)
    assert all(out[name] != plain[name] for name in ("cls", "cls_mix", "teacher_cls"))
    assert all(torch.equal(out[n], plain[n]) for n in ("feature", "discriminator", "branch_logit", "teacher_logit"))


def test_methods_without_label_smoothing_reject_it() -> None:
    takers = [name for name, kind in METHODS.items() if "label_smoothing" in kind.Config.__dataclass_fields__]
    assert sorted(takers) == sorted(SMOOTHED)
    with pytest.raises(UserError, match=r"this method has no label_smoothing; use it with mixskd, mixup"):
        METHODS["cskd"](make_toy(), label_smoothing=0.1)


def test_a_share_of_the_batch_has_all_terms_and_the_rest_is_mixup() -> None:
    method, images, labels, _ = setup(batch=6, share=1 / 3)
    permutation = [1, 0, 4, 2, 5, 3]
    mix = Mix(torch.tensor(0.3, dtype=torch.float64), torch.tensor(permutation))
    pair = Mix(mix.lam, torch.tensor(permutation[:2]))
    terms = reference_terms(method, images[:2], labels[:2], pair)
    mixed = torch.stack([0.3 * images[i] + 0.7 * images[j] for i, j in enumerate(permutation)])[2:]
    rest = 0.0
    for z, i in zip(copy.deepcopy(method).backbone(mixed).tolist(), range(2, 6), strict=True):
        own, other = int(labels[i]), int(labels[permutation[i]])
        rest += reference.soft_cross_entropy(z, [0.3 * (n == own) + 0.7 * (n == other) for n in range(5)]) / 4
    out = method(images, labels, mix)
    for name, value in terms.items():
        assert out[name].item() == pytest.approx(value, rel=1e-9), name
    assert out["cls_rest"].item() == pytest.approx(rest, rel=1e-9)
    assert out["loss"].item() == pytest.approx(sum(terms.values()) / 3 + 2 * rest / 3, rel=1e-9)
    assert out["output"].shape == (6, 5)


@pytest.mark.parametrize("options", [{}, {"per_sample": True}, {"mix": "cutmix"}, {"derangement": True}])
def test_pairs_of_a_share_stay_within_it(options: dict[str, object]) -> None:
    method = MixSKD(make_toy(), share=0.25, **options).double()
    images = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    mix = method.draw(images)
    assert sorted(mix.permutation[:4].tolist()) == [0, 1, 2, 3]
    parts = torch.cat([mix.first(4).apply(images[:4]), mix.rest(4).apply(images[4:])])
    torch.testing.assert_close(parts, mix.apply(images))
    method(images, torch.arange(16) % 5, mix)["loss"].backward()


def test_a_share_costs_less() -> None:
    def flops(name: str, **options: object) -> float:
        return count_cost(
            build_experiment({"method": {"name": name, **options}, "backbone": "wrn_16_2"}), 100, 32
        ).training_flops

    plain = flops("baseline")
    assert flops("mixskd", share=0.25) / plain == pytest.approx(1.75, abs=0.02)
    assert flops("mixskd", share=0.25, preset="light") / plain == pytest.approx(1.25, abs=0.02)
