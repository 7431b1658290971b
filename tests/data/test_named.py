"""Data sets by name, from generated files of their official layouts. Their counts differ from the published ones."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv

from mixskd.data.sources.named import NAMED, _fetched, load_named
from mixskd.errors import UserError


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cub200(root: Path) -> None:
    folder = root / "CUB_200_2011"
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Auk/c.jpg", "002.Auk/d.jpg"]
    for name in names:
        image(folder / "images" / name)
    text(folder / "images.txt", *(f"{i} {name}" for i, name in enumerate(names, 1)))
    text(folder / "train_test_split.txt", "1 1", "2 0", "3 0", "4 1")
    text(folder / "image_class_labels.txt", "1 1", "2 1", "3 2", "4 2")
    text(folder / "classes.txt", "1 001.Albatross", "2 002.Auk")


def dogs(root: Path) -> None:
    names = ["n01-Beagle/a.jpg", "n02-Collie/b.jpg"]
    for split in ("train", "test"):
        files = np.empty((2, 1), dtype=object)
        for i, name in enumerate(names):
            files[i, 0] = f"{name[:-4]}_{split}.jpg"
            image(root / "Images" / files[i, 0])
        savemat(root / f"{split}_list.mat", {"file_list": files, "labels": np.array([[1], [2]])})


def mit67(root: Path) -> None:
    for split in ("Train", "Test"):
        names = [f"{place}/{split}.jpg" for place in ("attic", "bar")]
        for name in names:
            image(root / "Images" / name)
        text(root / f"{split}Images.txt", *names)


def imagenet(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            image(root / split / name / "a.jpg")


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    for i in range(1, 7):
        image(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.arange(6) % 102 + 1})
    savemat(folder / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]})


def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text(folder / "variants.txt", "707-320", "A 340")
    for split in ("trainval", "test"):
        for i in range(2):
            image(folder / "images" / f"{split}{i}.jpg")
        text(folder / f"images_variant_{split}.txt", f"{split}0 707-320", f"{split}1 A 340")


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    annotations = np.array([("a.jpg", 1), ("b.jpg", 2)], dtype=[("fname", object), ("class", int)])
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        image(folder / f"cars_{split}" / "a.jpg")
        savemat(folder / file, {"annotations": annotations})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi", "BMW"], dtype=object)})


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        for name in ("Bengal", "pug"):
            image(folder / "images" / f"{name}_{split}.jpg")
        text(folder / "annotations" / f"{split}.txt", f"Bengal_{split} 1 1 1", f"pug_{split} 2 2 1")


def cifar(root: Path, kind: type[tv.CIFAR10], label: str, classes: str) -> None:
    folder = root / kind.base_folder
    folder.mkdir()
    for name, _ in [*kind.train_list, *kind.test_list]:
        batch = {"data": np.zeros((2, 3072), np.uint8), label: [0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({classes: ["apple", "bear"]}))


def cifar10(root: Path) -> None:
    cifar(root, tv.CIFAR10, "labels", "label_names")


def cifar100(root: Path) -> None:
    cifar(root, tv.CIFAR100, "fine_labels", "fine_label_names")


COUNTS = {
    cub200: (2, 2, 2), dogs: (2, 2, 2), mit67: (2, 2, 2), imagenet: (2, 2, 2), aircraft: (2, 2, 2), cars: (2, 2, 2),
    pets: (2, 2, 2), cifar10: (10, 2, 2), cifar100: (2, 2, 2),
}  # fmt: skip


@pytest.mark.parametrize("make", COUNTS, ids=lambda make: make.__name__)
def test_official_files_are_read_and_counted(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # generated files have other checksums than the published archives
    monkeypatch.setattr(tv.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    make(tmp_path)
    name = make.__name__
    data = load_named(name, str(tmp_path), None)
    assert (len(data.train), len(data.test), len(data.classes)) == COUNTS[make]
    assert sorted(set(data.train.labels.tolist())) == [0, 1]
    assert data.image_size == NAMED[name].image_size
    (note,) = data.notes
    assert f"not {NAMED[name].counts[0]:,} and {NAMED[name].counts[1]:,}" in note
    if not data.train.in_memory:
        assert all(Path(file).parent.is_dir() for file in data.train.images)


def test_flowers_train_on_train_and_val_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tv.Flowers102, "_check_integrity", lambda self: True)
    flowers102(tmp_path)
    with pytest.raises(UserError, match="98 of 102 classes have no training image"):
        load_named("flowers102", str(tmp_path), None).check()


def test_one_process_downloads_and_the_others_wait(tmp_path: Path) -> None:
    """Each reader would find half of the files while another one writes them."""
    folder, whole = tmp_path / "root", threading.Barrier(4)
    downloads: list[int] = []

    def read(download: bool) -> int:
        files = sorted(folder.glob("*.bin"))
        if len(files) == 5:
            return len(files)
        if not download:
            raise RuntimeError("Dataset not found or corrupted")
        downloads.append(1)
        for number in range(5):
            (folder / f"{number}.bin").touch()
            time.sleep(0.02)
        return 5

    def reader() -> int:
        whole.wait()
        return _fetched(folder, read)

    with ThreadPoolExecutor(4) as pool:
        assert [task.result() for task in [pool.submit(reader) for _ in range(4)]] == [5] * 4
    assert downloads == [1]


def test_missing_files_are_an_error_that_names_the_setting() -> None:
    with pytest.raises(UserError, match=r"cannot read mit67 under .* name its folder with --data\.root"):
        load_named("mit67", "/nonexistent", None)


@pytest.mark.parametrize("name", ["cifar10", "flowers102", "aircraft", "pets"])
def test_nothing_is_downloaded_without_permission(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {name} under"):
        load_named(name, str(tmp_path), None, download=False)
