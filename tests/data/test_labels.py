"""Labels of every kind: several an image from manifests and arrays, probabilities, and how they divide images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixskd import UserError
from mixskd.config import DataConfig
from mixskd.data import load_data, make_test_loader, make_train_loader
from mixskd.data.bundle import ImageSet
from mixskd.data.holdout import hold_out, hold_out_fold
from mixskd.data.labels import class_counts, strata
from tests.conftest import write_npz

CPU = torch.device("cpu")


def manifest(folder: Path, text: str) -> Path:
    """A manifest of ``text``, whose images are written beside it."""
    for line in text.splitlines()[1:]:
        Image.new("RGB", (9, 8), (len(line), 90, 200)).save(folder / line.split(",")[0])
    (folder / "m.csv").write_text(text, encoding="utf-8")
    return folder / "m.csv"


def labels_of(path: Path, split: str = "train", **settings: object) -> list[list[int]]:
    return load_data(DataConfig(source=str(path), **settings)).splits[split].labels.tolist()


NAMES = "path,labels,split\na.png,cat;dog,train\nb.png,,train\nc.png, owl ;cat,train\nd.png,dog,test\n"
COLUMNS = "path,owl,cat,dog,split\na.png,0,1,1,train\nb.png,0,0,,train\nc.png,1,true,0,train\nd.png,0,0,1.0,test\n"


def test_manifest_of_names_and_of_a_column_a_class(tmp_path: Path) -> None:
    path = manifest(tmp_path, NAMES)
    data = load_data(DataConfig(source=str(path)))
    assert data.classes == ("cat", "dog", "owl")
    assert data.several
    assert data.train.labels.dtype == np.uint8
    assert data.train.labels.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert labels_of(path, "test") == [[0, 1, 0]]
    assert data.about_labels() == "images a class: 1 (owl) to 2 (cat), several labels an image"
    path = manifest(tmp_path, COLUMNS)
    assert load_data(DataConfig(source=str(path))).classes == ("owl", "cat", "dog")
    assert labels_of(path) == [[0, 1, 1], [0, 0, 0], [1, 1, 0]]
    assert labels_of(path, "test") == [[0, 0, 1]]


def test_parquet_holds_lists_of_names(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    manifest(tmp_path, NAMES)
    table = {
        "path": ["a.png", "b.png", "c.png"],
        "labels": [["x", "y"], [], ["y"]],
        "split": ["train", "train", "test"],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "m.parquet")
    assert labels_of(tmp_path / "m.parquet") == [[1, 1], [0, 0]]


BAD = {
    "a label that train lacks": (
        NAMES + "e.png,cat;cow,test\n",
        "the test images have a label that the training",
    ),
    "a class without images": (COLUMNS.replace("c.png,1", "c.png,0"), "1 of 3 classes have no training image: owl"),
}


@pytest.mark.parametrize("name", BAD)
def test_manifest_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    text, says = BAD[name]
    with pytest.raises(UserError, match=says):
        load_data(DataConfig(source=str(manifest(tmp_path, text))))


def npz(path: Path, train: np.ndarray, test: np.ndarray | None = None) -> Path:
    with np.load(write_npz(path)) as file:
        arrays = dict(file)
    arrays["train_labels"] = train
    if test is not None:
        arrays["test_labels"] = test
    np.savez(path, **arrays)
    return path


SEVERAL = np.tile([[1, 0, 1], [0, 1, 0], [0, 0, 0]], (4, 1))
SOFT = np.tile([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], (4, 1))


def test_arrays_of_several_labels_and_of_probabilities(tmp_path: Path) -> None:
    assert labels_of(npz(tmp_path / "a.npz", SEVERAL.astype(bool), SEVERAL[:6])) == SEVERAL.tolist()
    data = load_data(DataConfig(source=str(npz(tmp_path / "b.npz", SOFT))))
    assert not data.several
    assert data.train.labels.dtype == np.float32
    assert data.counts.tolist() == pytest.approx(SOFT.sum(0).tolist(), rel=1e-6)
    assert data.test.labels.tolist() == np.eye(3)[np.arange(6) % 3].tolist()  # its indices, as probabilities
    (batch, *_) = make_train_loader(data, DataConfig(), 6, CPU, 0).epoch(0)
    assert batch.labels.dtype == torch.float32
    assert batch.labels.sum(1).tolist() == pytest.approx([1] * 6, rel=1e-6)
    ((_, scored),) = make_test_loader(data, CPU)
    assert scored.tolist() == [0, 1, 2] * 2


REFUSED = {
    "two": (SEVERAL * 2, None, r"the largest of train_labels is 2; N x C integers must be 0 or 1"),
    "sums": (SOFT * 1.1, None, "must be probabilities: 0 or above, with a sum of 1 for each image; for several labels"),
    "nan": (SOFT * np.nan, None, "must be probabilities"),
    "columns": (SEVERAL[:, :2], SEVERAL[:6, :2], "training labels have 2 columns, but there are 3 classes"),
    "mixed": (SEVERAL, None, "one split has several labels an image and another one"),
    "text": (np.array([["a", "b"]] * 12), None, "it must be N integers, or N x C numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    train, test, says = REFUSED[name]
    with pytest.raises(UserError, match=says):
        load_data(DataConfig(source=str(npz(tmp_path / "a.npz", train, test))))


def test_rarest_label_stands_for_an_image() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]], np.uint8)
    assert strata(labels).tolist() == [1, 0, 2, 3, 0]
    assert strata(labels, least=2).tolist() == [0] * 5  # too small ones join the largest
    assert strata(np.array([[0.1, 0.9], [0.7, 0.3]], np.float32)).tolist() == [1, 0]
    assert class_counts(labels, 3).tolist() == [4, 2, 1]


@pytest.mark.parametrize("groups", [None, np.array([f"patient {i // 2}" for i in range(40)])])
def test_hold_out_of_several_labels_keeps_their_shares(groups: np.ndarray | None) -> None:
    labels = (np.random.default_rng(0).random((40, 3)) < (0.6, 0.4, 0.2)).astype(np.uint8)
    images = ImageSet(np.zeros((40, 4, 4, 3), np.uint8), labels, groups)
    parts = [hold_out(images, 0.25, 0), *(hold_out_fold(images, 4, fold, 0) for fold in range(2))]
    for kept, held in parts:
        assert len(held) == pytest.approx(10, abs=3)
        assert np.abs(held.labels.mean(0) - labels.mean(0)).max() < 0.25
        assert not set(kept.places.tolist()) & set(held.places.tolist())


def test_fingerprint_sees_another_probability(tmp_path: Path) -> None:
    digests = {
        load_data(DataConfig(source=str(npz(tmp_path / "a.npz", np.roll(SOFT, n, axis=1))))).fingerprint["digest"]
        for n in range(2)
    }
    assert len(digests) == 2


def test_semicolons_in_the_column_label_mean_several_labels(tmp_path: Path) -> None:
    text = "filename,class,split\na.png,cat;dog,train\nb.png,,train\nc.png,dog,test\n"
    assert labels_of(manifest(tmp_path, text)) == [[1, 1], [0, 0]]
