"""Files in order as batches, without knowing how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mixskd.data.file_loader import FEW, FileLoader, Files
from mixskd.data.images import decode_image
from mixskd.data.preprocess import Preprocess
from tests.deploy.support import photo

CPU = torch.device("cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_file_loader_gives_the_evaluation_images_in_order(workers: int, tmp_path: Path) -> None:
    preprocess = Preprocess(70, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    files = [str(photo(tmp_path / f"{i}.png", i)) for i in range(7)]
    (tmp_path / "3.png").write_bytes(b"no image")
    seen: list[str] = []
    for paths, images, readable in FileLoader(files, preprocess, CPU, batch_size=3, workers=workers):
        seen += paths
        for path, image, fine in zip(paths, images, readable, strict=True):
            assert fine == (not path.endswith("3.png"))
            if fine:
                expected = preprocess.transform()(decode_image(path, enough=preprocess.enough))
                torch.testing.assert_close(image, expected.as_subclass(torch.Tensor), rtol=0, atol=1e-5)
    assert seen == files


@pytest.mark.parametrize("workers", [0, 1])
def test_file_loader_reads_only_a_few_batches_ahead(workers: int, tmp_path: Path) -> None:
    file, asked = str(photo(tmp_path / "a.png", 0)), 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield file

    batches = iter(FileLoader(endless(), Preprocess(8), CPU, batch_size=2, workers=workers))
    for number in range(1, 30):
        next(batches)
        assert asked <= max(FEW, 2 * (number + 3))


def test_few_files_are_decoded_without_workers(tmp_path: Path) -> None:
    files = [str(photo(tmp_path / "a.png", 0))] * FEW
    loaders = [FileLoader(f, Preprocess(8), CPU, batch_size=4, workers=2, few_alone=True) for f in (files[1:], files)]
    assert [loader.batches.loader.num_workers for loader in loaders] == [0, 2]
    assert sum(len(paths) for paths, _, _ in loaders[0]) == FEW - 1


def test_unreadable_files_are_black_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    sample = Files(Preprocess(9))[str(tmp_path / "a.png")]
    assert sample["images"].shape == (3, 9, 9)
    assert not sample["readable"]
