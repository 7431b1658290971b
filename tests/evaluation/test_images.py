"""Linearity, features and corruption."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import mixskd.evaluation.suites.linearity as linearity
from mixskd.data import Preprocess
from mixskd.errors import UserError
from mixskd.evaluation.corruptions.functions import STRENGTHS, Draws, corrupt, frozen_pane, glass_blur
from mixskd.evaluation.corruptions.published import PublishedFiles
from mixskd.evaluation.suites import SUITES, build_suite
from mixskd.evaluation.suites.corruption import Corruption
from mixskd.evaluation.suites.features import Features, extract
from mixskd.evaluation.suites.linearity import Linearity, gather, partners
from tests.evaluation.support import Toy, batches, context, pixels, whole


def test_miss_rate_agrees_with_a_loop() -> None:
    model, data = Toy(), batches()
    images, labels = whole(data)
    suite = Linearity(lambdas=(0.0, 0.3, 1.0), pairs=0)
    pairs = list(suite.pairs_of(data, labels, context()))
    a, b, i, j = (torch.cat(part) for part in zip(*pairs, strict=True))
    y_a, y_b = labels[i], labels[j]
    assert (y_a != y_b).all()
    result = suite(model, data, context())
    for point in result["curve"]:
        p = model(point["lambda"] * a + (1 - point["lambda"]) * b).softmax(1)
        misses = [int(q.argmax()) not in (i, j) for q, i, j in zip(p, y_a.tolist(), y_b.tolist(), strict=True)]
        assert point["miss_rate"] == pytest.approx(100 * sum(misses) / len(misses))
        mass = (p.gather(1, y_a[:, None]) + p.gather(1, y_b[:, None])).mean().item()
        assert point["mass"] == pytest.approx(mass, abs=1e-6)
    assert any(point["miss_rate"] > 0 for point in result["curve"])
    json.dumps(result, allow_nan=False)


def test_pairs_do_not_depend_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = Linearity(pairs=15)
    one = suite(Toy(), batches(batch=10), context())
    other = suite(Toy(), batches(batch=4), context())
    assert one["number_of_pairs"] == 15
    assert [p["miss_rate"] for p in one["curve"]] == [p["miss_rate"] for p in other["curve"]]
    images, labels = whole(batches())
    wanted = torch.tensor([20, 3, 11])
    assert torch.equal(gather(batches(), wanted), images[wanted])
    monkeypatch.setattr(linearity, "POOL_BYTES", 5 * images[0].numel() * 4)
    chosen = list(Linearity(pairs=0).pairs_of(batches(), labels, context()))
    assert sum(len(i) for _, _, i, _ in chosen) == len(labels)
    for a, b, i, j in chosen:
        assert torch.equal(images[i], a)
        assert torch.equal(images[j], b)


def test_logits_at_lambda_0_and_1_are_reused() -> None:
    model, data = Toy(), batches()
    passes: list[int] = []
    model.register_forward_hook(lambda module, given, logits: passes.append(len(logits)))
    told = context()
    told.outputs(model, data)
    before = sum(passes)
    Linearity(lambdas=(0.0, 0.5, 1.0), pairs=0)(model, data, told)
    assert sum(passes) - before == 24  # at lambda 0.5 only


def test_partners_have_other_labels() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    chosen = partners(labels, torch.Generator().manual_seed(0), equal=False)
    assert chosen[:3].tolist() == [3, 3, 3]
    assert chosen[3] != 3
    same = partners(torch.zeros(4, dtype=torch.long), torch.Generator(), equal=False)
    assert same.tolist() == [-1] * 4
    equal = partners(torch.zeros(4, dtype=torch.long), torch.Generator(), equal=True)
    assert all(0 <= j < 4 and j != i for i, j in enumerate(equal.tolist()))


def test_linearity_rejects_a_single_class() -> None:
    data = [(images, torch.zeros_like(labels)) for images, labels in batches()]
    with pytest.raises(UserError, match="two or more classes"):
        Linearity()(Toy(), data, context())


def test_features_are_the_input_of_the_head() -> None:
    model, train, test = Toy(), batches(60, seed=2), batches(seed=3)
    x, y = extract(model, train, context(), 0)
    images, labels = whole(train)
    assert torch.allclose(torch.from_numpy(x), model.body(images).mean((2, 3)))
    assert y.tolist() == labels.tolist()
    result = Features(neighbours=1)(model, test, context(train=train))
    x_test, y_test = extract(model, test, context(), 1)
    scale = StandardScaler().fit(x)
    probe = LogisticRegression(C=0.1, max_iter=200).fit(scale.transform(x), y)
    assert result["linear_top1"] == pytest.approx(100 * probe.score(scale.transform(x_test), y_test))
    train_f, test_f = (torch.nn.functional.normalize(torch.from_numpy(v)) for v in (x, x_test))
    nearest = torch.from_numpy(y)[(test_f @ train_f.T).argmax(1)]
    assert result["knn_top1"] == pytest.approx(100 * float((nearest == torch.from_numpy(y_test)).double().mean()))


def test_features_on_another_data_set_and_on_few_images() -> None:
    model = Toy()
    elsewhere = {"train": batches(40, classes=3, seed=5), "test": batches(12, classes=3, seed=6)}
    result = Features(max_train=30)(model, batches(), context(other_data=elsewhere, other_name="others"))
    assert (result["train_images"], result["images"], result["trained_on"]) == (30, 12, "others")
    with pytest.raises(UserError, match="needs training images"):
        Features()(model, batches(), context())


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("size", [16, 64])
def test_corruptions_change_more_with_severity_and_do_not_depend_on_the_batch(name: str, size: int) -> None:
    ramp = torch.linspace(0.1, 0.9, size)
    x = (ramp[:, None] * ramp).expand(3, 3, size, size) * 0.5 + 0.5 * pixels(3, size)
    distances = []
    for severity in (1, 5):
        changed = corrupt(x, name, severity, 0, [4, 5, 9])
        assert changed.shape == x.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert torch.allclose(changed[1:], corrupt(x[1:], name, severity, 0, [5, 9]), atol=1e-6)
        both = torch.stack([changed.flatten(), x.flatten()])
        # Haze brightens dark images less the more it hides of them.
        alike = torch.corrcoef(both)[0, 1] if name == "fog" else -(changed - x).abs().mean()
        distances.append(1 - alike.item() if name == "fog" else -alike.item())
    assert distances[0] > 1e-6
    if name != "elastic_transform":  # whose published strengths do not grow with severity
        assert distances[1] > distances[0]


def test_corruption_suite() -> None:
    names = ("gaussian_noise", "contrast")
    suite = Corruption(names=names, severities=(1, 5), images=10)
    progress: list[float] = []
    result = suite(Toy(), batches(), context(progress=progress.append))
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert result == suite(Toy(), batches(batch=3), context())
    means = [result["corruptions"][name]["error"] for name in names]
    assert result["mean_corruption_error"] == pytest.approx(sum(means) / 2)
    assert result["images"] == 10
    with pytest.raises(UserError, match="unknown corruption 'fogg'; did you mean 'fog'"):
        Corruption(names=("fogg",))


def test_corruptions_are_the_fifteen_published_ones() -> None:
    noise, blurs = (
        {"gaussian_noise", "shot_noise", "impulse_noise"},
        {f"{k}_blur" for k in ("defocus", "glass", "motion", "zoom")},
    )
    weather, digital = (
        {"snow", "frost", "fog", "brightness"},
        {"contrast", "elastic_transform", "pixelate", "jpeg_compression"},
    )
    assert set(STRENGTHS) == noise | blurs | weather | digital


def test_glass_blur_moves_pixels_to_neighbours_and_frost_has_structure() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8) / 64
    shuffled = glass_blur(x, (1e-3, 1, 1), Draws(0, [3], (1, 1)))
    moved = (shuffled - x).mul(64).round().long()
    assert set(moved.unique().tolist()) <= {0, -1, -8, -9}  # a step of -1 or 0 in each direction
    assert (moved != 0).any()
    pane = frozen_pane(32, 32, Draws(0, [1, 2], (1, 1)))
    assert pane.shape == (2, 1, 32, 32)
    assert 0.1 < pane.mean() < 0.9
    assert (pane.std((1, 2, 3)) > 0.05).all()
    assert not torch.allclose(pane[0], pane[1])


def published(folder: Path, *, arrays: bool) -> PublishedFiles:
    """Published files of two corruptions: black at severity 1, noise at the others; and a model of two classes."""
    model = SimpleNamespace(classes=("cat", "dog"), preprocess=Preprocess(8), image_size=8)
    noise = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 8, 8, 3), dtype=np.uint8)
    noise[:, 0] = 0
    labels = np.array([0, 1, 1, 0, 1, 1])
    for name, images in zip(("fog", "spatter"), noise, strict=True):
        if arrays:
            np.save(folder / f"{name}.npy", images.reshape(30, 8, 8, 3))
            np.save(folder / "labels.npy", np.tile(labels, 5))
            continue
        for severity, number in itertools.product(range(5), range(6)):
            place = folder / name / str(severity + 1) / model.classes[labels[number]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[severity, number]).save(place / f"{number}.png")
    return PublishedFiles(folder, model, torch.device("cpu"), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("arrays", [True, False])
def test_published_files_are_scored(tmp_path: Path, arrays: bool) -> None:
    """Black images get the first class, so two of six are right; the others get the second, so four are."""
    files = published(tmp_path, arrays=arrays)

    class Bright(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            light = (x.mean((1, 2, 3)) > x.new_tensor(-1.0)).float()
            return torch.stack([1 - light, light], 1)

    suite = Corruption(files=str(tmp_path), images=0)
    progress: list[float] = []
    result = suite(Bright(), batches(classes=2), context(corrupted=files, progress=progress.append))
    assert progress == sorted(progress)
    assert progress[-1] == 1
    for name in ("fog", "spatter"):
        assert result["corruptions"][name]["by_severity"] == pytest.approx([400 / 6, *[200 / 6] * 4])
    assert result["images"] == 6
    assert result["protocol"]["text"].startswith("published image files")
    assert (
        Corruption(files=str(tmp_path), images=4)(Bright(), batches(classes=2), context(corrupted=files))["images"] == 4
    )


def test_published_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no published corruptions"):
        PublishedFiles(tmp_path, None, torch.device("cpu"), 4).names()  # type: ignore[arg-type]
    files = published(tmp_path, arrays=True)
    with pytest.raises(UserError, match=r"neither .*snow\.npy nor .*snow/2"):
        files.batches("snow", 2, 0, torch.Generator())
    np.save(tmp_path / "labels.npy", np.full(30, 2))
    with pytest.raises(UserError, match="a label 2, but the model has 2 classes"):
        files.batches("fog", 1, 0, torch.Generator())
    np.save(tmp_path / "labels.npy", np.full(30, -1))
    with pytest.raises(UserError, match="a label -1, but the model has 2 classes"):
        files.batches("fog", 1, 0, torch.Generator())
    for number in (31, 0):
        np.save(tmp_path / "fog.npy", np.zeros((number, 8, 8, 3), np.uint8))
        with pytest.raises(UserError, match="must hold uint8 images of 5 severities"):
            files.batches("fog", 1, 0, torch.Generator())
    (tmp_path / "fog.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="cannot read the published corruption"):
        files.batches("fog", 1, 0, torch.Generator())


def test_errors_are_divided_by_those_of_a_reference(tmp_path: Path) -> None:
    options = {"names": ("gaussian_noise", "contrast"), "severities": (1, 5), "images": 10}
    with pytest.raises(UserError, match=r"corruption\.json; evaluate the reference with --suite corruption first"):
        Corruption(**options, reference=str(tmp_path))(Toy(), batches(), context())
    other = Corruption(**options)(Toy(seed=3), batches(), context())
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "corruption.json").write_text(json.dumps(other))
    result = Corruption(**options, reference=str(tmp_path))(Toy(), batches(), context())
    ratios = [result["corruptions"][n]["error"] / other["corruptions"][n]["error"] for n in options["names"]]
    assert result["mce"] == pytest.approx(100 * sum(ratios) / 2)
    with pytest.raises(UserError, match="other severities, images, files, split or seed"):
        Corruption(**{**options, "images": 9}, reference=str(tmp_path))(Toy(), batches(), context())


def test_features_are_taken_from_the_shared_pass() -> None:
    model, data, train = Toy(), batches(seed=3), batches(60, seed=2)
    shared = context(train=train, keep_features=True)
    result = Features(neighbours=3)(model, data, shared)
    plain = Features(neighbours=3)(model, data, context(train=train))
    assert result == plain
    assert torch.equal(shared.outputs(model, data).features, torch.from_numpy(extract(model, data, context(), 1)[0]))


def test_suites_are_built_from_text() -> None:
    assert all(name == suite.name for name, suite in SUITES.items())
    assert build_suite("fgsm", {"epsilons": "0.001,0.01"}) == build_suite("fgsm", {"epsilons": [0.001, 0.01]})
    with pytest.raises(UserError, match="unknown suite 'fgms'; did you mean 'fgsm'"):
        build_suite("fgms")
    with pytest.raises(UserError, match=r"unknown key fgsm\.epsilon; did you mean 'fgsm\.epsilons'"):
        build_suite("fgsm", {"epsilon": 1})
