"""MixSKD against the paper's equations in plain floats, and its invariants."""

from __future__ import annotations

import copy
import math
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mixskd import MixSKD, UserError, build_backbone
from mixskd.config.build import make_config
from mixskd.methods.mixskd import DiscriminatorMode, MixSKDConfig, branch_logit_loss
from mixskd.methods.parts.branches import AuxiliaryBranches
from mixskd.methods.parts.criteria import BinaryCrossEntropy
from mixskd.methods.parts.mixing import Mix
from tests.conftest import make_toy
from tests.methods import reference

TERMS = ("cls", "cls_mix", "feature", "discriminator", "branch_logit", "teacher_cls", "teacher_logit")

WEIGHTS = {"mu": 0.7, "beta": 2.0, "gamma": 0.3}


def setup(stages: int = 3, classes: int = 5, batch: int = 4, lam: float = 0.3, **options):
    method = MixSKD(make_toy(stages, classes), **options).double()
    images = torch.randn(batch, 3, 8, 8, dtype=torch.float64)
    labels = torch.randint(classes, (batch,))
    return method, images, labels, Mix(torch.tensor(lam, dtype=torch.float64), torch.randperm(batch))


def reference_terms(method: MixSKD, images: Tensor, labels: Tensor, mix: Mix) -> dict[str, float]:
    twin = copy.deepcopy(method)  # batch norm's running statistics stay as they are
    lam, permutation = mix.lam.item(), mix.permutation.tolist()
    mixes = torch.stack([lam * images[i] + (1 - lam) * images[j] for i, j in enumerate(permutation)])
    maps = [m.detach() for m in twin.branches(twin.backbone.feature_maps(torch.cat([images, mixes])))]
    batch = len(labels)
    linear = lambda layer: (layer.weight.tolist(), layer.bias.tolist())  # noqa: E731
    assert twin.discriminators is not None
    teacher = twin.self_teacher
    return reference.terms(
        [m[:batch].tolist() for m in maps], [m[batch:].tolist() for m in maps], labels.tolist(), lam, permutation,
        [linear(head) for head in [*twin.branches.heads, twin.backbone.head]],
        (teacher.projection.weight.tolist(), *linear(teacher.classifier)),
        [(*linear(tower[0]), *linear(tower[2])) for tower in twin.discriminators.towers],
        method.config.temperature,
    )  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stages=st.integers(1, 4), classes=st.integers(2, 7), batch=st.integers(1, 5),
    lam=st.floats(0, 1), temperature=st.floats(0.5, 6),
)  # fmt: skip
def test_every_term_equals_paper_equation(stages, classes, batch, lam, temperature) -> None:
    method, images, labels, mix = setup(
        stages, classes, batch, lam, temperature=temperature, mu=0.7, beta=2.0, gamma=0.3
    )
    expected = reference_terms(method, images, labels, mix)
    out = method(images, labels, mix)
    for name in TERMS:
        assert out[name].item() == pytest.approx(expected[name], rel=1e-9, abs=1e-10), name
    weights = dict(zip(TERMS, (1, 1, 2.0, 0.3, 0.7, 0.7, 0.7), strict=True))
    total = sum(weights[name] * expected[name] for name in TERMS)
    assert out["loss"].item() == pytest.approx(total, rel=1e-9)


def test_binary_terms_of_several_labels_equal_their_equations() -> None:
    method, images, _, drawn = setup(temperature=2.0)
    labels = (torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    expected = reference_terms(method, images, labels, drawn)
    method.use(BinaryCrossEntropy())
    out = method(images, labels, drawn)
    for name in TERMS:
        assert out[name].item() == pytest.approx(expected[name], rel=1e-9, abs=1e-10), name


@pytest.mark.parametrize("name", TERMS)
def test_gradients_respect_stop_gradients(name: str) -> None:
    """Finite differences of each term, with the detached side held fixed, against autograd."""
    method, images, labels, mix = setup()
    weight = method.backbone.head.weight
    twin = copy.deepcopy(method)
    out = method(images, labels, mix)
    (gradient,) = torch.autograd.grad(out[name], weight, allow_unused=True)
    if name in ("feature", "discriminator", "branch_logit", "teacher_cls"):
        assert gradient is None or not gradient.any()  # the backbone's own classifier is not in these terms
        return
    eps = 1e-6
    for position in ((0, 0), (2, 1)):
        values = []
        for sign in (1, -1):
            other = copy.deepcopy(twin)
            with torch.no_grad():
                other.backbone.head.weight[position] += sign * eps
            values.append(reference_terms(other, images, labels, mix)[name])
        # h does not depend on the backbone's head, so holding the teacher fixed is exact here
        assert gradient[position].item() == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5, abs=1e-8)


def test_eq_10_gives_gradients_to_students_only() -> None:
    method, images, labels, mix = setup()
    maps = method.branches(method.backbone.feature_maps(torch.cat([images, mix(images)])))
    head = method.branches.heads[0]
    z = head(maps[0].mean((2, 3))).detach()
    lam, T = mix.lam, method.config.temperature
    z_i = (lam * z[:4] + (1 - lam) * z[:4][mix.permutation]).requires_grad_()
    z_m = z[4:].clone().requires_grad_()
    branch_logit_loss([z_i, z_i], [z_m, z_m], T).backward()
    p_i, p_m = (z_i / T).softmax(1), (z_m / T).softmax(1)
    assert torch.allclose(z_i.grad, T * (p_i - p_m).detach() / 4)
    assert torch.allclose(z_m.grad, T * (p_m - p_i).detach() / 4)


def test_eq_11_trains_self_teacher_and_eq_12_does_not() -> None:
    method, images, labels, mix = setup()
    parameters = list(method.self_teacher.parameters())
    out = method(images, labels, mix)
    gradients = torch.autograd.grad(out["teacher_logit"], parameters, retain_graph=True, allow_unused=True)
    assert not any(g is not None and g.any() for g in gradients)
    assert all(g.any() for g in torch.autograd.grad(out["teacher_cls"], parameters, retain_graph=True))
    first = method.backbone.stages[0][0].weight
    assert torch.autograd.grad(out["teacher_cls"], first)[0].any()  # Eq. 11 flows into the backbone


def test_eq_9_equals_classifier_of_eq_6() -> None:
    method, images, _, mix = setup()
    maps = method.branches(method.backbone.feature_maps(images))
    for head, fmap in zip([*method.branches.heads, method.backbone.head], maps, strict=True):
        assert torch.allclose(mix(head(fmap.mean((2, 3)))), head(mix(fmap).mean((2, 3))))
    pooled = [m.mean((2, 3)) for m in maps]
    mixed_maps = [mix(m) for m in maps]
    h = method.self_teacher
    assert torch.allclose(mix(h(maps, pooled)), h(mixed_maps, [m.mean((2, 3)) for m in mixed_maps]))


def test_lambda_one_gives_zero_feature_and_branch_losses() -> None:
    method, images, labels, mix = setup(lam=1.0)
    out = method(images, labels, mix)
    assert out["feature"] == 0
    assert out["branch_logit"].abs() < 1e-12


def test_discriminator_loss_at_chance() -> None:
    method, images, labels, mix = setup()
    assert method.discriminators is not None
    for tower in method.discriminators.towers:
        nn.init.zeros_(tower[2].weight)
        nn.init.zeros_(tower[2].bias)
    assert method(images, labels, mix)["discriminator"].item() == pytest.approx(2 * 3 * math.log(2))


def test_discriminators_and_self_teacher_are_in_state_and_trained() -> None:
    method, images, labels, mix = setup()
    before = copy.deepcopy(method.state_dict())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method(images, labels, mix)["loss"].backward()
    optimizer.step()
    names = [n for n, _ in method.named_parameters() if n.startswith(("discriminators", "self_teacher"))]
    assert len(names) == 3 * 4 + 3
    for name in names:
        assert not torch.equal(before[name], method.state_dict()[name]), name


@pytest.mark.parametrize("mode", get_args(DiscriminatorMode))
def test_discriminator_modes(mode: str) -> None:
    torch.manual_seed(1)
    method, images, labels, mix = setup(discriminator=mode)
    out = method(images, labels, mix)
    if mode == "off":
        assert "discriminator" not in out
        assert method.discriminators is None
        return
    first, last = method.backbone.stages[0][0].weight, method.discriminators.towers[0][2].weight
    if mode == "frozen":
        assert not last.requires_grad
    else:
        assert torch.autograd.grad(out["discriminator"], last, retain_graph=True)[0].any()
    (gradient,) = torch.autograd.grad(out["discriminator"], first, allow_unused=True)
    if mode == "d_only":
        assert gradient is None
        return
    joint = copy.deepcopy(method)
    object.__setattr__(joint.config, "discriminator", "joint")
    joint.zero_grad()
    (plain,) = torch.autograd.grad(joint(images, labels, mix)["discriminator"], joint.backbone.stages[0][0].weight)
    assert torch.allclose(gradient, -plain if mode == "grl" else plain)


@pytest.mark.parametrize(
    ("option", "term"),
    [
        ({"original_weight": 0.0}, "cls"), ({"mix_cls": False}, "cls_mix"), ({"beta": 0.0}, "feature"),
        ({"gamma": 0.0}, "discriminator"), ({"branch_logit": False}, "branch_logit"),
        ({"teacher_cls": False}, "teacher_cls"), ({"teacher_logit": False}, "teacher_logit"),
    ],
)  # fmt: skip
def test_each_term_can_be_switched_off_alone(option: dict, term: str) -> None:
    torch.manual_seed(3)
    full, images, labels, mix = setup()
    torch.manual_seed(3)
    part = MixSKD(make_toy(3, 5), **option).double()
    part.load_state_dict(full.state_dict(), strict=False)
    expected, out = full(images, labels, mix), part(images, labels, mix)
    assert term not in out
    for name in set(TERMS) - {term}:
        assert torch.equal(out[name], expected[name]), name


def test_self_teacher_and_batch_norm_switches() -> None:
    method, images, labels, mix = setup(teacher_stages=(2,), teacher_detach=True)
    assert method.self_teacher.projection.in_features == method.backbone.feature_dim
    out = method(images, labels, mix)
    (gradient,) = torch.autograd.grad(out["teacher_cls"], method.backbone.stages[0][0].weight, allow_unused=True)
    assert gradient is None
    apart, images, labels, mix = setup(separate_bn=True, teacher_norm_act=True)
    assert apart(images, labels, mix)["loss"].isfinite()
    originals, mixed = apart._aligned_maps(images, mix(images))
    alone = apart.branches(apart.backbone.feature_maps(images))
    assert all(torch.allclose(a, b) for a, b in zip(originals, alone, strict=True))
    with pytest.raises(UserError, match="teacher_stages"):
        setup(teacher_stages=(4,))


def test_cutmix_mixes_maps_in_resampled_box() -> None:
    method, images, labels, _ = setup(mix="cutmix", alpha=1.0)
    mix = method.draw(images)
    out = method(images, labels, mix)
    out["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in method.parameters())
    originals, mixed = method._aligned_maps(images, mix(images))
    top, bottom, left, right = mix.box.tolist()
    expected = 0.0
    for f, m in zip(originals, mixed, strict=True):
        height, width = f.shape[2:]
        tall, wide = images.shape[2] / height, images.shape[3] / width
        for y in range(height):
            for x in range(width):
                rows = max(0.0, min(bottom, (y + 1) * tall) - max(top, y * tall)) / tall
                columns = max(0.0, min(right, (x + 1) * wide) - max(left, x * wide)) / wide
                share = rows * columns  # of this cell that is pasted
                pasted = (1 - share) * f[:, :, y, x] + share * f[mix.permutation][:, :, y, x]
                expected += ((pasted - m[:, :, y, x]) ** 2).sum().item() / f.numel()
    assert out["feature"].item() == pytest.approx(expected)


def test_deployed_backbone_equals_plain_backbone() -> None:
    method = MixSKD(build_backbone("wrn_10_1", 7))
    images = torch.randn(2, 3, 16, 16)
    method(images, torch.tensor([1, 2]))["loss"].backward()
    plain = build_backbone("wrn_10_1", 7)
    own = {k.removeprefix("backbone."): v for k, v in method.state_dict().items() if k.startswith("backbone.")}
    plain.load_state_dict(own)
    assert torch.equal(plain.eval()(images), method.backbone.eval()(images))


def test_presets() -> None:
    released = make_config(MixSKDConfig, {"preset": "released_cifar", "temperature": "4"})
    assert (released.mix_cls, released.discriminator, released.two_logit, released.temperature) == (
        False,
        "frozen",
        True,
        4,
    )
    method = MixSKD(make_toy(), config=released).double()
    out = method(torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2]))
    assert set(out) == {"loss", "output", "cls", "feature", "discriminator", "branch_logit", "teacher_logit"}
    assert not any(p.requires_grad for p in method.self_teacher.parameters())
    assert make_config(MixSKDConfig, {"preset": "released_imagenet"}).alpha == 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be above 0"), ({"temperature": -1}, "temperature must be above 0"),
        ({"temprature": 3}, "did you mean 'method.temperature'"), ({"preset": "papr"}, "did you mean 'paper'"),
        ({"mix": "cutmx"}, "did you mean 'cutmix'"), ({"beta": float("nan")}, "beta"),
        ({"mix": "cutmix", "per_sample": True}, "per_sample works only with mix mixup"),
        ({"beta_warmup": 1.5}, "beta_warmup must be from 0 to 1"),
        ({"label_smoothing": 1.0}, "label_smoothing must be 0 or above"),
        ({"feature_distance": "normalized"}, "did you mean 'normalised'"),
        ({"branches": False, "teacher_stages": (2,)}, "must be from 1 to 1 without branches"),
    ],
)  # fmt: skip
def test_mixskd_rejects_invalid_hyper_parameters(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MixSKD(make_toy(), **options)


def test_mixskd_rejects_config_without_terms() -> None:
    with pytest.raises(UserError, match="every term"):
        MixSKD(make_toy(), original_weight=0, mix_cls=False, beta=0, gamma=0, mu=0)


def test_branch_maps_have_last_stage_shape() -> None:
    backbone = build_backbone("cifar_resnet18", 10).eval()
    maps = AuxiliaryBranches(backbone).eval()(backbone.feature_maps(torch.randn(1, 3, 32, 32)))
    assert {tuple(m.shape) for m in maps} == {(1, 512, 4, 4)}
