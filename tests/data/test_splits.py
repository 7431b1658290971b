"""Splits by name, groups, duplicates, manifests and balance: what goes where, and what is refused with one line."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.config import DataConfig, recipes
from mixskd.data import load_data, make_test_loader
from mixskd.data.file_list import FileList
from mixskd.data.needs import DataNeeds
from mixskd.data.plan import BatchPlan
from mixskd.data.sources.manifest import load_manifest
from mixskd.data.splits_file import divided_as, write_division
from mixskd.errors import UserError
from mixskd.runtime.distributed import World


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    return path


def folder(root: Path, splits: tuple[str, ...], images: int = 3) -> Path:
    for s, split in enumerate(splits):
        for c in range(2):
            for i in range(images):
                image(root / split / f"class{c}" / f"p{i // 2}_{i}.png", 100 * s + 10 * c + i)
    return root


def load(source: Path, **options):
    return load_data(DataConfig(source=str(source), image_size=8, **options))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_val_by_any_usual_name_is_kept_beside_test(name: str, tmp_path: Path) -> None:
    data = load(folder(tmp_path, ("train", name, "test")))
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 6, "val": 6, "test": 6}
    assert data.scored == "val"


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has both val/ and dev/"):
        load(folder(tmp_path, ("train", "val", "dev")))


def test_npz_keeps_val_and_test(npz: Path) -> None:
    with np.load(npz) as file:
        arrays = {**file, "val_images": file["test_images"], "val_labels": file["test_labels"]}
    np.savez(npz, **arrays)
    data = load_data(DataConfig(source=str(npz)))
    assert list(data.splits) == ["train", "val", "test"]


def test_hold_out_depends_on_the_split_seed_alone(tmp_path: Path) -> None:
    source = folder(tmp_path, ("photos",), images=8) / "photos"
    first, again, other = (load(source, split_seed=seed) for seed in (0, 0, 1))
    assert first.test.images == again.test.images
    assert first.test.images != other.test.images
    assert first.divided


def test_val_holdout(tmp_path: Path) -> None:
    data = load(folder(tmp_path, ("train", "test"), images=4), val_holdout=0.25)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 6, "val": 2, "test": 8}
    assert set(map(str, data.train.images)).isdisjoint(map(str, data.splits["val"].images))


def test_stored_split_is_used_again(tmp_path: Path, npz: Path) -> None:
    source = folder(tmp_path / "f", ("photos",), images=8) / "photos"
    with np.load(npz) as file:
        np.savez(npz, train_images=file["train_images"], train_labels=file["train_labels"])
    for path in (source, npz):
        config = DataConfig(source=str(path), split_seed=3, image_size=8)
        data = load_data(config)
        write_division(data, tmp_path / "splits.csv")
        if path == source:
            image(source / "class0" / "added_later.png", 999)
        again = divided_as(load_data(config, divided=False), tmp_path / "splits.csv")
        for split in ("train", "test"):
            assert list(map(str, again.splits[split].images)) == list(map(str, data.splits[split].images))
            assert np.array_equal(again.splits[split].labels, data.splits[split].labels)
    rows = list(csv.DictReader((tmp_path / "splits.csv").read_text().splitlines()))
    assert Counter(row["split"] for row in rows) == {"train": 9, "test": 3}
    np.savez(npz, train_images=data.train.images, train_labels=data.train.labels)
    with pytest.raises(UserError, match=r"the image \d+ of .*splits\.csv is gone"):
        divided_as(load_data(config, divided=False), tmp_path / "splits.csv")


def test_stored_val_beside_a_test_split_is_used_again(tmp_path: Path, npz: Path) -> None:
    for source in (folder(tmp_path / "photos", ("train", "test"), images=4), npz):
        settings = {"val_holdout": 0.25}
        run = tmp_path / f"run-{source.stem}"
        summary = mixskd.train(
            data={"source": str(source), "image_size": 8, **settings}, backbone="wrn_10_1", method="baseline",
            out=str(run), run={"epochs": 1, "batch_size": 3, "progress": False, "precision": "fp32"},
        )  # fmt: skip
        data = load(source, **settings)
        again = divided_as(load_data(DataConfig(source=str(source), image_size=8), divided=False), run / "splits.csv")
        for split in data.splits:
            assert list(map(str, again.splits[split].images)) == list(map(str, data.splits[split].images))
            assert np.array_equal(again.splits[split].labels, data.splits[split].labels)
        for split in ("val", "test"):
            scores = mixskd.evaluate(run, split=split)
            assert scores["images"] == len(data.splits[split])
            assert scores["loss"] == pytest.approx(summary["scores"][split]["loss"], rel=1e-5)


def test_folder_with_a_test_split_needs_no_hold_out(tmp_path: Path) -> None:
    config = DataConfig(source=str(folder(tmp_path / "photos", ("train", "test"), images=4)), image_size=8)
    whole, alone = load_data(config), load_data(config, only=("train",))
    assert list(alone.splits) == ["train"]
    assert alone.train.images == whole.train.images


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    source = folder(tmp_path, ("photos",), images=8) / "photos"
    data = load(source, group=r"(p\d+)_", holdout=0.25)
    sides = [{Path(i).name.split("_")[0] for i in split.images} for split in (data.train, data.test)]
    assert sides[0].isdisjoint(sides[1])
    assert sides[1]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", "is not a regular expression"),
        ("(a{99999999999999999999})", "is not a regular expression"),
        ("(a{1,4294967295})", "is not a regular expression"),
        ("camera", "does not fit the path"),
        (r"class\d", "the group"),
    ],
)
def test_bad_groups_are_refused(group: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load(folder(tmp_path, ("train", "test")), group=group)


def test_groups_need_files(npz: Path) -> None:
    with pytest.raises(UserError, match="needs files"):
        load_data(DataConfig(source=str(npz), group="x"))


def test_duplicates_are_reported_refused_or_dropped(tmp_path: Path) -> None:
    root = folder(tmp_path, ("train", "test"))
    shutil.copy(root / "test" / "class0" / "p0_0.png", root / "train" / "class0" / "twin.png")
    data = load(root)
    (note,) = data.notes
    assert "1 training image also in val or test, such as" in note
    assert "twin.png" in note
    assert len(data.train) == 7
    with pytest.raises(UserError, match=r"there is 1 training image .*--data\.duplicates drop"):
        load(root, duplicates="error")
    assert len(load(root, duplicates="drop").train) == 6


def test_duplicates_across_a_hold_out_are_found(tmp_path: Path) -> None:
    source = folder(tmp_path, ("photos",), images=6) / "photos"
    held = load(source).test.images[0]
    shutil.copy(held, held.with_name(f"zz_{held.name}"))
    for seed in range(20):  # until the twins are apart
        data = load(source, split_seed=seed)
        sides = [
            sum(held.parent == i.parent and held.name in i.name for i in split.images)
            for split in (data.train, data.test)
        ]
        assert bool(data.notes) == (sides == [1, 1])
        if data.notes:
            break
    assert data.notes
    kept = load(source, split_seed=seed, duplicates="drop")
    assert len(kept.train) == len(data.train) - 1


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 32)), (96, (96, 96))])
def test_arrays_are_scored_as_the_preprocessing_says(size: int, expected: tuple[int, int], tmp_path: Path) -> None:
    """Above 64 px that is the centre of a larger image, as for files and as ``predict`` does it."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), dtype=np.uint8)
    labels = np.arange(6) % 2
    np.savez(tmp_path / "a.npz", train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    data = load_data(DataConfig(source=str(tmp_path / "a.npz")))
    images, _ = next(iter(make_test_loader(data, torch.device("cpu"), workers=0)))
    assert images.shape[2:] == expected
    transform = data.preprocess.transform()
    for got, array in zip(images, pixels, strict=True):
        torch.testing.assert_close(got, transform(Image.fromarray(array)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("source", "weights", "recipe"),
    [
        (None, None, "digits"), (None, "runs/a", "digits"), ("a.npz", "runs/a", "small_images"),
        ("photos", None, "photos"), ("photos", "pretrained", "finetune"), ("cub200", "pretrained", "finetune"),
        ("cifar100", None, "cifar100"),
    ],
)  # fmt: skip
def test_recipe_fits_the_data(source: str | None, weights: str | None, recipe: str) -> None:
    assert recipes.fitting(source, weights) == recipe


@pytest.mark.parametrize("source", ["a.npz", "photos", "photos.csv", "shards.tar"])
def test_recipe_from_scratch_costs_what_plain_training_costs_and_clips_gradients(source: str) -> None:
    settings = recipes.load(recipes.fitting(source, None))
    assert settings["method"]["name"] in ("baseline", "ols")
    assert settings["optim"]["clip_norm"] > 0


@pytest.mark.parametrize("source", ["photos", "photos.csv", "shards.tar"])
def test_recipe_from_weights_is_plain_training_that_starts_from_the_probe(source: str) -> None:
    settings = recipes.load(recipes.fitting(source, "pretrained"))
    assert settings["method"]["name"] == "baseline"
    assert (settings["optim"]["head_start"], settings["optim"]["norms"]) == ("probe", "frozen")


def manifest(tmp_path: Path, lines: list[str], header: str = "path,label,split") -> Path:
    for i in range(6):
        image(tmp_path / "images" / f"{i}.png", i)
    path = tmp_path / "list.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


GOOD = [f"images/{i}.png,{'cat' if i % 2 else 'dog'},{'test' if i > 3 else 'train'}" for i in range(6)]


def test_a_manifest(tmp_path: Path) -> None:
    data = load(manifest(tmp_path, GOOD))
    assert data.classes == ("cat", "dog")
    assert [len(data.train), len(data.test)] == [4, 2]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    numbers = load(manifest(tmp_path, [f"images/{i}.png,{10 * (i % 2)},train" for i in range(6)]), holdout=0.4)
    assert numbers.classes == ("0", "10")


@pytest.mark.parametrize(
    ("header", "columns", "mark"),
    [
        ("filename;class;subset", (), ";"),
        ("Image\tCategory\tsplit", (), "\t"),
        ("photo|label|part", ("photo", "label", "part"), "|"),
        ("file,species,split", ("file", "species"), ","),
    ],
)
def test_a_manifest_with_other_columns_and_delimiters(
    header: str, columns: tuple[str, ...], mark: str, tmp_path: Path
) -> None:
    path = manifest(tmp_path, [line.replace(",", mark) for line in GOOD], header)
    data = load(path, columns=columns)
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 4, 2)


def test_a_manifest_resolves_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, resolve, calls = manifest(tmp_path, 50 * GOOD), Path.resolve, []
    monkeypatch.setattr(Path, "resolve", lambda self, *rest: calls.append(self) or resolve(self, *rest))
    data = load_manifest(path, 224)
    assert len(calls) == 2, "the manifest's folder, and images/"
    images = data.splits["train"].images
    assert isinstance(images, FileList)
    assert images.folder.nbytes + images.starts.nbytes + len(images._names) == 200 * (4 + 8 + len("0.png") + 1)


def test_a_link_out_of_the_folder_of_a_manifest_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path / "in", [*GOOD, "images/link.png,cat,train"])
    image(tmp_path / "secret.png", 1)
    (tmp_path / "in" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"row 8: the path 'images/link\.png' is outside"):
        load(path)
    (tmp_path / "in" / "images" / "link.png").unlink()
    (tmp_path / "in" / "images" / "link.png").symlink_to("0.png")
    assert len(load(path).train) == 5


def test_a_manifest_as_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [dict(zip(("path", "label", "split"), line.split(","), strict=True)) for line in GOOD]
    manifest(tmp_path, GOOD)
    table = pyarrow.Table.from_pylist(rows).rename_columns(["file", "class", "split"])
    parquet.write_table(table, tmp_path / "list.parquet")
    assert load(tmp_path / "list.parquet").train.labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("lines", "header", "options", "message"),
    [
        ([*GOOD, "images/9.png,cat,train"], None, {}, "row 8: there is no image"),
        ([*GOOD, "images/1.png,bird,test"], None, {}, "a label that the training images lack: bird"),
        ([*GOOD, "images/1.png,cat,exam"], None, {}, "row 8: the split 'exam' is not known"),
        ([*GOOD, "images/1.png,,train"], None, {}, "row 8: the label is empty"),
        (GOOD, None, {"columns": ("photo", "label")}, "has no column 'photo', which data.columns names"),
        (GOOD, None, {"group": "patient"}, "has no column 'patient'"),
        ([line.replace("dog", "cat") for line in GOOD], None, {}, "one class only"),
        ([line.replace("train", "test") for line in GOOD], None, {}, "lists no training image"),
        ([f"{line},one" for line in GOOD], "path,label,split,who", {"group": "who"}, "is in both"),
    ],
)
def test_bad_manifests_are_refused(
    lines: list[str], header: str | None, options: dict, message: str, tmp_path: Path
) -> None:
    path = manifest(tmp_path, lines, header or "path,label,split")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load(path, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("balance", "expected"), [(0.0, [90, 9, 1]), (1.0, [34, 33, 33]), (0.5, [70, 22, 8])])
def test_balance(balance: float, expected: list[int]) -> None:
    """Class c is drawn n_c^(1 - b) / sum n^(1 - b) of the time, and its images equally often."""
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    plan = BatchPlan(labels, 10, 0, DataNeeds(), World(), balance=balance)
    anchors, _ = plan.epoch(4)
    counts = np.bincount(labels[anchors.ravel()], minlength=3)
    shares = np.array([90, 9, 1.0]) ** (1 - balance)
    assert np.abs(counts - 100 * shares / shares.sum()).max() < 1
    assert counts.tolist() == expected
    often = np.bincount(anchors.ravel(), minlength=100)
    for label in range(3):
        assert np.ptp(often[labels == label]) <= 1
    assert np.array_equal(anchors, plan.epoch(4)[0])
    halves = [BatchPlan(labels, 10, 0, DataNeeds(), World(rank, 2), balance=balance).epoch(4)[0] for rank in range(2)]
    assert np.array_equal(np.concatenate(halves, axis=1), anchors)
