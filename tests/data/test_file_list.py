from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np

from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.file_list import FileList
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import scan

NAMES = (
    "a/b.jpg", "a-1.jpg", "a/c/z.PNG", ".jpg", ".h/x.jpg", "b..jpg", "é.jpg", "a/c.jpg", "a.b/q.gif", "A.jpg", "c.",
    "a.txt", "x.jpg/k.jpg",
)  # fmt: skip


def write(root: Path) -> Path:
    for file in (root / label / name for label in "xy" for name in NAMES):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for link, target in (("link.jpg", "a-1.jpg"), ("loop.jpg", "loop.jpg"), ("folder", "a"), ("gone.jpg", "none")):
        (root / "x" / link).symlink_to(target)
    return root


def test_scan_lists_files_in_the_order_of_sorted_paths(tmp_path: Path) -> None:
    classes, images = scan(write(tmp_path))
    found = [
        sorted(f for f in (tmp_path / name).rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())
        for name in classes
    ]
    assert list(images.images) == found[0] + found[1]
    assert images.labels.tolist() == [0] * len(found[0]) + [1] * len(found[1])
    assert len(found[0]) == len(found[1]) + 1  # with the link to a file


def test_file_list_acts_as_a_sequence_of_paths(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1.png", Path("2.png"), tmp_path / "a" / "3.png", Path("/4.png")]
    files = FileList.of(paths)
    assert [files[i] for i in (0, 1, 2, -1)] == paths == list(files)
    assert files[1:3] == files[np.array([1, 2])] == FileList.of(paths[1:3]) != FileList.of(paths[:2])
    assert list(files.texts(tmp_path)) == ["a/1.png", "2.png", "a/3.png", "/4.png"]
    assert list(pickle.loads(pickle.dumps(files))) == paths
    assert paths[2] in files


def test_fingerprint_is_the_same_for_a_file_list_and_a_list_of_paths(tmp_path: Path) -> None:
    _, images = scan(write(tmp_path))
    for paths in (images.images, FileList.of(["a.png"] * len(images))):
        bundles = [
            DataBundle({"train": ImageSet(kind, images.labels)}, ("x", "y"), Preprocess(8))
            for kind in (paths, list(paths))
        ]
        assert bundles[0].fingerprint == bundles[1].fingerprint


def test_file_list_takes_less_than_fifty_bytes_per_file() -> None:
    files = FileList.of(f"/images/train/n0{i % 1000:07}/n0{i % 1000:07}_{i}.JPEG" for i in range(10_000))
    arrays = (
        files.folder.nbytes + files.starts.nbytes + sys.getsizeof(files._names) + sum(map(sys.getsizeof, files.folders))
    )
    assert arrays / len(files) < 50
