"""Workers that stay do not change the batches, wherever an epoch begins; large photographs are decoded small."""

from __future__ import annotations

import gc
import io
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from mixskd.config import DataConfig
from mixskd.data import load_data, make_train_loader, worker_count
from mixskd.data.images import decode_image
from mixskd.data.needs import DataNeeds
from mixskd.data.preprocess import Preprocess
from mixskd.errors import UserError, exit_code

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_kept_workers_give_the_same_batches(folder: Path) -> None:
    data = load_data(DataConfig(source=str(folder), image_size=16))
    needs = DataNeeds(partners=1, indices=True)
    alone, helped = (make_train_loader(data, DataConfig(workers=workers), 4, CPU, 0, needs, None) for workers in (0, 2))
    next(iter(helped.epoch(5)))  # left in the middle
    for epoch, start in ((0, 0), (1, 2), (0, 1)):
        for one, other in zip(alone.epoch(epoch, start), helped.epoch(epoch, start), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.extra["partners"], other.extra["partners"])
            assert torch.equal(one.extra["indices"], other.extra["indices"])
    assert one.images.dtype == torch.float32
    assert one.images.is_contiguous(memory_format=torch.channels_last)
    rest = [batch.labels for batch in islice(alone.epoch(3), 1, None)]
    assert all(torch.equal(a, b.labels) for a, b in zip(rest, helped.epoch(3, 1), strict=True))


def test_workers_end_with_a_loader_in_a_reference_cycle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data(DataConfig(source=str(folder), image_size=16))
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 60.0)
    begun = time.perf_counter()
    for whole in (True, False):
        loader = make_train_loader(data, DataConfig(workers=1), 4, CPU, 0)
        batches = loader.epoch(0)
        batch = list(batches)[-1] if whole else next(batches)
        loader.cycle = [loader, batches, batch]
        del loader, batches, batch
    gc.collect()
    assert time.perf_counter() - begun < 50, "torch waits so long for workers that nobody told to end"


@pytest.mark.parametrize("workers", [0, 1])
def test_image_damaged_during_a_run_is_one_line(folder: Path, workers: int) -> None:
    data = load_data(DataConfig(source=str(folder), image_size=16))
    broken = folder / "train" / "a" / "3.png"
    broken.write_bytes(b"")
    loader = make_train_loader(data, DataConfig(workers=workers), 12, CPU, 0)
    with pytest.raises(UserError) as raised:
        next(iter(loader.epoch(0)))
    assert str(raised.value).startswith(f"cannot read the image {broken} (")
    assert "\n" not in str(raised.value)


# torch raises wherever the program is when a worker ends, in a finalizer too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_worker_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data(DataConfig(source=str(folder), image_size=16))
    loader = make_train_loader(data, DataConfig(workers=1), 1, CPU, 0)

    def act() -> None:
        for _ in loader.epoch(0):
            for worker in loader.batches.loader._iterator._workers:
                worker.kill()

    assert exit_code(act) == 2
    assert capsys.readouterr().err.startswith("mixskd: error: a process that loads images was stopped")


def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    gradient = np.linspace(0, 255, 640 * 480).reshape(480, 640).astype(np.uint8)
    Image.fromarray(gradient).convert("RGB").save(path, quality=95)
    whole, half, same = (decode_image(path, enough=enough) for enough in (None, 200, 300))
    assert whole.size == same.size == (640, 480)
    assert half.size == (320, 240)
    small = np.asarray(whole.resize((320, 240), Image.Resampling.BOX), dtype=float)
    assert np.abs(small - np.asarray(half, dtype=float)).mean() < 2
    assert decode_image("named", path.read_bytes()).size == (640, 480)


@pytest.mark.parametrize(("factor", "size", "mean", "most"), [(4, (1280, 854), 0.5, 5), (7, (1120, 748), 2.5, 48)])
def test_reduced_decoding_hardly_changes_the_image_of_the_evaluation(
    factor: int, size: tuple[int, int], mean: float, most: int
) -> None:
    preprocess = Preprocess(224)
    for pixels in load_sample_images().images:
        photo = Image.fromarray(pixels).resize((640 * factor, 427 * factor), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        photo.save(content, "JPEG", quality=90)
        whole, reduced = (decode_image("photo", content.getvalue(), enough) for enough in (None, preprocess.enough))
        assert reduced.size == size
        one, other = (np.asarray(preprocess.crop()(image), dtype=float) for image in (whole, reduced))
        assert np.abs(one - other).mean() < mean
        assert np.abs(one - other).max() <= most


@pytest.mark.parametrize(
    ("cores", "processes", "wanted", "count"),
    [
        (1, 1, None, 1),
        (6, 1, None, 6),
        (64, 1, None, 16),
        (64, 8, None, 8),
        (4, 8, None, 1),
        (64, 8, 0, 0),
        (2, 1, 8, 8),
    ],
)
def test_worker_count_follows_the_cores_of_each_process(
    cores: int, processes: int, wanted: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixskd.data.make_loaders.usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert worker_count(wanted) == count


@pytest.mark.gpu
def test_prefetched_batches_are_complete(folder: Path) -> None:
    data = load_data(DataConfig(source=str(folder), image_size=16))
    here, there = (
        make_train_loader(data, DataConfig(workers=2), 4, torch.device(device), 0) for device in ("cpu", "cuda")
    )
    for one, other in zip(here.epoch(0), there.epoch(0), strict=True):
        assert torch.allclose(one.images, other.images.cpu(), atol=1e-6)
        assert torch.equal(one.labels, other.labels.cpu())
