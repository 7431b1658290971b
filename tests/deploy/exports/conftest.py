"""Runs that every test of an export takes, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.deploy.photo_run import make_run, tiny_is_known


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a ResNet-18 on photographs beside it."""
    torch.set_num_threads(1)
    return make_run(tmp_path_factory.mktemp("resnet"), "resnet18")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of a network of three convolutions."""
    torch.set_num_threads(1)
    with tiny_is_known():
        yield make_run(tmp_path_factory.mktemp("small"), "tiny")
