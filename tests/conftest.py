"""Small nets and data for all tests; what needs a GPU or minutes is skipped, and says so."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

# Tests run beside each other, one thread each; their subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where nothing can be written nothing is measured, so that every processor chooses alike.
os.environ["MIXSKD_MEASURED"] = os.path.join(os.devnull, "none")
os.environ["MIXSKD_FEATURES"] = os.path.join(os.devnull, "none")
_CACHE = tempfile.TemporaryDirectory()
os.environ["MIXSKD_VERIFIED"] = os.path.join(_CACHE.name, "verified.sqlite")

import numpy as np
import pytest
import torch
from torch import nn

from mixskd.backbones import StagedBackbone
from tests.processes import ForkedWorker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that train for minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="trains for minutes; run with --slow"))
    # One that begins last would keep a single processor busy.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _forked_workers() -> Iterator[None]:
    """Workers of comparisons start without the seconds of their imports; those of ``tests.processes`` start in full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixskd.comparison.worker.subprocess", SimpleNamespace(Popen=ForkedWorker, PIPE=subprocess.PIPE))
        yield


def make_toy(stages: int = 3, classes: int = 5) -> StagedBackbone:
    """A float64 net of ``stages`` stages, each a strided convolution with batch norm and tanh."""
    blocks: list[nn.Module] = []
    width = 3
    for k in range(stages):
        conv = nn.Conv2d(width, 4 + k, 3, stride=2 if k else 1, padding=1, bias=False)
        blocks.append(nn.Sequential(conv, nn.BatchNorm2d(4 + k), nn.Tanh()))
        width = 4 + k
    return StagedBackbone(blocks, nn.Linear(width, classes), name="toy").double()


def make_toy_without_norm() -> StagedBackbone:
    """An fp32 net of three stages without batch norm, where two halves of a batch give what the whole gives."""
    blocks = [
        nn.Sequential(nn.Conv2d(3 if k == 0 else 4, 4, 3, stride=2 if k else 1, padding=1), nn.Tanh()) for k in range(3)
    ]
    return StagedBackbone(blocks, nn.Linear(4, 5), name="toy")


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Twelve training and six test images of 8 px in three classes."""
    return write_npz(tmp_path / "toy.npz")


def write_npz(path: Path, train: int = 12, test: int = 6) -> Path:
    """The file of the fixture ``npz``, with so many images if asked."""
    generator = np.random.default_rng(0)
    np.savez(
        path,
        train_images=generator.integers(0, 256, (train, 8, 8, 3), dtype=np.uint8),
        train_labels=np.arange(train) % 3,
        test_images=generator.integers(0, 256, (test, 8, 8, 3), dtype=np.uint8),
        test_labels=np.arange(test) % 3,
        classes=np.array(["a", "b", "c"]),
    )
    return path
