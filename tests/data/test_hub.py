"""``hf:FOLDER`` gives the same images and labels as the data set in it, and trains and resumes like a folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.config import DataConfig
from mixskd.data import load_data, verify
from mixskd.data.images import check_image, decode_image
from mixskd.data.sources.hub import _names
from mixskd.errors import UserError
from tests.interruption import StopsAt

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")
PIXELS = np.random.default_rng(0).integers(0, 256, (18, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(low: int, high: int, label: str = "label", named: bool = True) -> Any:
    kind = datasets.ClassLabel(names=["a", "b", "c"]) if named else datasets.Value("string")
    values = [i % 3 if named else "xyz"[i % 3] for i in range(low, high)]
    columns = {"image": [Image.fromarray(p) for p in PIXELS[low:high]], label: values}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({"image": datasets.Image(), label: kind}))


def save(folder: Path, kind: str, **tables: Any) -> str:
    if kind == "saved":
        datasets.DatasetDict(tables).save_to_disk(folder)
        return f"hf:{folder}"
    for split, one in tables.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        one.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return f"hf:{folder}"


def pixels(image: Any) -> np.ndarray:
    return np.asarray(decode_image(str(image), image.read()))


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_images_and_labels(kind: str, tmp_path: Path) -> None:
    source = save(tmp_path / "set", kind, train=table(0, 12), validation=table(12, 15), test=table(15, 18))
    data = load_data(DataConfig(source=source, image_size=8))
    assert data.classes == ("a", "b", "c")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "val": 3, "test": 3}
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert np.array_equal(pixels(data.splits["val"].images[1]), PIXELS[13])
    assert np.array_equal(pixels(data.train.subset(np.array([7, 2])).images[0]), PIXELS[7])


def test_names_of_columns_and_splits(tmp_path: Path) -> None:
    tables = {"small": table(0, 12, "kind", named=False), "rest": table(12, 18, "kind", named=False)}
    source = save(tmp_path / "set", "saved", **tables)
    data = load_data(DataConfig(source=source, columns=("image", "kind"), split_names=("small", "rest")))
    assert (data.classes, len(data.train), len(data.test)) == (("x", "y", "z"), 12, 6)
    for settings, message in (
        ({}, r"has the splits small, rest; say with --data\.split-names"),
        ({"split_names": ("smal", "rest")}, "no split 'smal'; did you mean 'small'"),
        ({"split_names": ("small", "rest")}, r"no column 'label'; it has: image, kind"),
    ):
        with pytest.raises(UserError, match=message):
            load_data(DataConfig(source=source, **settings))
    with pytest.raises(UserError, match="there is no folder"):
        load_data(DataConfig(source=f"hf:{tmp_path}/none"))


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    source = save(tmp_path / "set", "saved", train=table(0, 12), test=table(12, 18))
    settings: dict[str, Any] = {
        "data": {"source": source, "image_size": 8, "workers": 0}, "backbone": "wrn_10_1", "method": "baseline",
        "optim": {"lr": 0.01},
    }  # fmt: skip
    run = {"epochs": 2, "batch_size": 4, "progress": False, "checkpoint_every_steps": 4}
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    mixskd.train(out=str(whole), run=run, **settings)
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(out=str(stopped), run=run, listeners=[StopsAt(5)], **settings)
    mixskd.train(out=str(stopped), run=run, resume=True, **settings)
    ends = [mixskd.load(out).state_dict() for out in (whole, stopped)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_files_elsewhere_are_not_read(tmp_path: Path) -> None:
    source = save(tmp_path / "set", "parquet", train=table(0, 12))
    table(0, 18).to_parquet(tmp_path / "elsewhere.parquet")
    for other in (tmp_path / "elsewhere.parquet", "https://example.org/x.parquet"):
        named = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {other}"
        (tmp_path / "set" / "README.md").write_text(f"---\n{named}\n---\n")
        assert sum(map(len, load_data(DataConfig(source=source)).splits.values())) == 12
    Image.fromarray(PIXELS[0]).save(tmp_path / "private.png")
    cells = {"image": [str(tmp_path / "private.png")] * 6, "label": [i % 3 for i in range(6)]}
    made = datasets.Dataset.from_dict(cells, features=table(0, 1).features)
    with pytest.raises(UserError, match="paths/train/0 has no image, and no file in"):
        load_data(DataConfig(source=save(tmp_path / "paths", "parquet", train=made)))


def test_images_are_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "set", "saved", train=table(0, 12), test=table(11, 18))
    for file in (tmp_path / "set").rglob("*.arrow"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    monkeypatch.setattr("mixskd.data.sources.hub.PART", 5)
    reads: list[str] = []
    monkeypatch.setattr(verify, "check_image", lambda path, *x, **y: reads.append(path) or check_image(path, *x, **y))
    config = DataConfig(source=source, image_size=8)
    first = load_data(config)
    assert "1 training image also in val or test" in first.notes[-1]
    assert len(reads) == len(set(reads)) == 19
    assert np.array_equal(load_data(config).train.digests, first.train.digests)  # type: ignore[arg-type]
    assert len(reads) == 19, "a warm start decodes nothing"
    for file in (tmp_path / "set" / "train").rglob("*.arrow"):
        os.utime(file, (1_700_000_001, 1_700_000_001))
    load_data(config)
    assert len(reads) == 31, "and reads a table that was changed again"


def test_unreadable_image_is_named_or_left_out(tmp_path: Path) -> None:
    encoded = table(0, 12).cast_column("image", datasets.Image(decode=False))
    broken = encoded.map(
        lambda row, i: {"image": {"bytes": row["image"]["bytes"][: 40 if i == 4 else None], "path": None}},
        with_indices=True,
        features=encoded.features,
    )
    config = DataConfig(source=save(tmp_path / "set", "saved", train=broken, test=table(12, 18)))
    with pytest.raises(UserError, match=r"set/train/4"):
        load_data(config)
    data = load_data(dataclasses.replace(config, skip_bad_images=True))
    assert (len(data.train), data.train.images[4].number) == (11, 5)
    assert data.notes == (f"left out 1 unreadable image, the first {tmp_path}/set/train/4",)


def test_image_folder_is_that_of_the_own_reader(tmp_path: Path) -> None:
    for i, image in enumerate(PIXELS):
        file = tmp_path / "photos" / ("test" if i < 6 else "train") / "abc"[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    ours = load_data(DataConfig(source=f"hf:{tmp_path / 'photos'}"))
    own = load_data(DataConfig(source=str(tmp_path / "photos")))
    assert ours.classes == own.classes
    for split in own.splits:
        got, wanted = (
            {(str(file), label) for file, label in zip(one.images, one.labels, strict=True)}
            for one in (data.splits[split] for data in (ours, own))
        )
        assert got == wanted


def labelled(kind: Any, values: list[Any]) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    images = [Image.fromarray(p) for p in PIXELS[: len(values)]]
    return datasets.Dataset.from_dict({"image": images, "label": values}, features=features)


def test_lists_of_labels_are_several_labels_an_image(tmp_path: Path) -> None:
    lists = [[], [0], [0, 1], [2]]
    for name, kind, values in (
        ("classes", datasets.ClassLabel(names=["a", "b", "c"]), lists),
        ("text", datasets.Value("string"), [["abc"[i] for i in one] for one in lists]),
    ):
        made = labelled(datasets.List(kind), values)
        data = load_data(DataConfig(source=save(tmp_path / name, "saved", train=made, test=made)))
        assert data.several
        assert data.classes == ("a", "b", "c")
        assert data.train.labels.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_hidden_labels_leave_a_split_out_and_a_missing_one_is_named(tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["a", "b"])
    fine, hidden = labelled(kind, [0, 1, 0, 1]), labelled(kind, [-1, -1])
    data = load_data(DataConfig(source=save(tmp_path / "set", "saved", train=fine, validation=fine, test=hidden)))
    assert list(data.splits) == ["train", "val"]
    assert data.notes[0] == "the images of test are left out, since they have no labels"
    for name, missing in (("null", None), ("minus", -1)):
        source = save(tmp_path / name, "saved", train=labelled(kind, [0, 1, missing, 1]))
        with pytest.raises(UserError, match=r"train/2 has no label; remove the row, or label it"):
            load_data(DataConfig(source=source))
    with pytest.raises(UserError, match=r"train/0 has the label -2, but there are 2 classes"):
        _names(-2, ["a", "b"], "train/0")
