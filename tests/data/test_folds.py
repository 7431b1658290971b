"""Folds of a cross-validation: sizes, classes, groups, which split they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from mixskd.config import DataConfig
from mixskd.data import load_data
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.holdout import hold_out_fold
from mixskd.data.splits_file import divided_as, write_division
from mixskd.errors import UserError
from tests.data.test_splits import folder, load


def digits(**options: object) -> DataBundle:
    return load_data(DataConfig(**options))  # type: ignore[arg-type]


def test_folds_are_those_of_scikit_learn_and_share_no_image() -> None:
    whole = load_data(DataConfig(), divided=False).train
    expected = [held for _, held in StratifiedKFold(4, shuffle=True, random_state=3).split(whole.labels, whole.labels)]
    held = [digits(folds=4, fold=fold, split_seed=3).test.places for fold in range(4)]
    for ours, theirs in zip(held, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(np.concatenate(held)) == list(range(len(whole)))


def test_fold_is_val_where_val_is_wanted_and_test_stays_the_same() -> None:
    first, second = (digits(folds=5, fold=fold, val_holdout=0.2) for fold in (0, 1))
    assert list(first.splits) == ["train", "val", "test"]
    np.testing.assert_array_equal(first.test.places, second.test.places)
    assert set(first.splits["val"].places).isdisjoint(second.splits["val"].places)
    assert set(first.test.places).isdisjoint([*first.train.places, *first.splits["val"].places])


def test_groups_stay_in_one_fold() -> None:
    labels = np.tile(np.arange(2), 30)
    groups = np.repeat(np.arange(12), 5).astype(str)
    images = ImageSet(np.zeros((60, 2, 2, 3), np.uint8), labels, groups)
    held = []
    for fold in range(3):
        kept, out = hold_out_fold(images, 3, fold, seed=0)
        assert set(kept.groups).isdisjoint(out.groups)
        held += list(out.places)
    assert sorted(held) == list(range(60))


def test_fold_is_written_and_read_again(tmp_path: Path) -> None:
    source = folder(tmp_path / "f", ("photos",), images=6) / "photos"
    data = load(source, folds=3, fold=1)
    write_division(data, tmp_path / "splits.csv")
    again = divided_as(load_data(DataConfig(source=str(source), image_size=8), divided=False), tmp_path / "splits.csv")
    assert again.test.images == data.test.images
    assert again.train.images == data.train.images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 1}, "data.fold 1 is no part of data.folds, which is not set"),
        ({"folds": 3, "fold": 3}, "has the parts 0 to 2"),
        ({"folds": 1}, "data.folds must be from 2 to 1,000"),
        ({"folds": 500}, "fewer than the 500 folds"),
        ({"train_on_val": True, "val_holdout": 0.1}, "leaves no val"),
        ({"train_on_val": True}, "needs a test split"),
    ],
)
def test_mistake_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        digits(**options)


def test_own_test_split_is_not_replaced_by_a_fold(npz: Path) -> None:
    with pytest.raises(UserError, match="the data have a test split of their own"):
        digits(source=str(npz), folds=2)
    assert list(digits(source=str(npz), folds=2, val_holdout=0.5).splits) == ["train", "val", "test"]


def test_val_joins_train(tmp_path: Path) -> None:
    source = folder(tmp_path, ("train", "val", "test"))
    joined, apart = load(source, train_on_val=True), load(source)
    assert list(joined.train.images) == [*apart.train.images, *apart.splits["val"].images]
    assert list(joined.splits) == ["train", "test"]
    np.testing.assert_array_equal(joined.train.labels, np.concatenate([apart.train.labels, apart.splits["val"].labels]))
