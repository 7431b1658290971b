"""Features are what the last layer takes, and are kept by content."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mixskd.backbones import StagedBackbone, build_backbone
from mixskd.config import DataConfig
from mixskd.data import DataBundle, load_data
from mixskd.probing import features
from mixskd.probing.features import pooled_features
from tests.conftest import write_npz
from tests.deploy.photo_run import write_photos

CPU = torch.device("cpu")


@pytest.fixture
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    monkeypatch.setenv("MIXSKD_FEATURES", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def network() -> StagedBackbone:
    return build_backbone("wrn_10_1", 3)


@pytest.fixture
def data(npz: Path) -> DataBundle:
    return load_data(DataConfig(source=str(npz)))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that went through a network."""
    seen: list[str] = []
    compute = features._computed

    def counted(backbone: StagedBackbone, data: DataBundle, split: str, *others: object) -> np.ndarray:
        seen.append(split)
        return compute(backbone, data, split, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_computed", counted)
    return seen


def test_features_give_the_logits_of_evaluation(data: DataBundle, network: StagedBackbone) -> None:
    network.train()
    before = {key: x.clone() for key, x in network.state_dict().items()}
    x = torch.from_numpy(pooled_features(network, data, "train", CPU))
    assert network.training
    assert all(torch.equal(x, before[key]) for key, x in network.state_dict().items())
    images = torch.from_numpy(np.asarray(data.train.images)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (data.mean, data.std))
    with torch.no_grad():
        expected = network.eval()((images - mean) / std)
        torch.testing.assert_close(network.head(x), expected, rtol=1e-4, atol=1e-5)


def test_features_are_cached_by_content(
    data: DataBundle, network: StagedBackbone, kept_in: Path, passes: list[str], tmp_path: Path
) -> None:
    first = pooled_features(network, data, "train", CPU)
    np.testing.assert_array_equal(pooled_features(network, data, "train", CPU), first)
    torch.nn.init.zeros_(network.head.weight)  # what the features do not depend on
    np.testing.assert_array_equal(pooled_features(network, data, "train", CPU), first)
    assert passes == ["train"]
    pooled_features(network, data, "test", CPU)
    other = dataclasses.replace(data, preprocess=dataclasses.replace(data.preprocess, mean=(0.1, 0.2, 0.3)))
    pooled_features(network, other, "train", CPU)
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    pooled_features(network, data, "train", CPU)
    changed = load_data(DataConfig(source=str(write_npz(tmp_path / "more.npz", train=15))))
    pooled_features(network, changed, "train", CPU)
    assert passes == ["train", "test", "train", "train", "train"]


def test_files_are_known_by_their_bytes(
    network: StagedBackbone, kept_in: Path, passes: list[str], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos")
    config = DataConfig(source=str(tmp_path / "photos"), image_size=72)
    pooled_features(network, load_data(config), "train", CPU, workers=0)
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = DataConfig(source=str(tmp_path / "moved"), image_size=72)
    pooled_features(network, load_data(moved), "train", CPU, workers=0)
    assert passes == ["train"]
    a, b = sorted((tmp_path / "moved" / "train" / "ant").iterdir())[:2]
    b.write_bytes(a.read_bytes())
    pooled_features(network, load_data(moved), "train", CPU, workers=0)
    assert passes == ["train", "train"]


def test_a_damaged_file_of_the_cache_is_computed_anew(
    data: DataBundle, network: StagedBackbone, kept_in: Path, passes: list[str]
) -> None:
    first = pooled_features(network, data, "train", CPU)
    (file,) = kept_in.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(pooled_features(network, data, "train", CPU), first)
    assert passes == ["train", "train"]


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        path = tmp_path / f"{name}.npy"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    features.remove_oldest(tmp_path, most=200)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "old"]
