"""Damaged images and model files: one line, within a bound on time and memory."""

from __future__ import annotations

import io
import random
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixskd.artifacts.model_file import load_model
from mixskd.data.images import EXTENSIONS, decode_image
from mixskd.errors import UserError
from tests.bad_inputs import whole_model

KINDS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "DDS", "ICO", "PCX", "SGI", "TGA", "JPEG2000")
SECONDS, MEBIBYTES = 5.0, 1500.0


def flipped(content: bytes, chance: random.Random) -> bytes:
    """1 to 8 bits changed."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(min(len(changed), chance.choice((64, 4096, len(changed)))))] ^= 1 << chance.randrange(
            8
        )
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    """Cut off, or with a hole of zeros."""
    at = chance.randrange(len(content))
    return content[:at] if chance.random() < 0.5 else content[:at] + bytes(64) + content[at + 64 :]


def swapped(content: bytes, chance: random.Random) -> bytes:
    """The head of this file on the tail of itself from elsewhere."""
    at, to = chance.randrange(len(content)), chance.randrange(len(content))
    return content[:at] + content[to:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, swapped)


def images() -> list[bytes]:
    """An image in every format that Pillow here can write."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    found = []
    for kind in (kind for kind in KINDS if kind in Image.SAVE):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, kind)
        found.append(content.getvalue())
    return found


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(count: int, sources: list[bytes], read: Callable[[bytes, random.Random], object]) -> int:
    """Read ``count`` damaged files; how many were refused. Anything but success or a line of UserError is raised."""
    chance, before, refused = random.Random(0), peak(), 0
    for number in range(count):
        content = DAMAGES[number % len(DAMAGES)](chance.choice(sources), chance)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's on odd tags
                read(content, chance)
        except UserError as error:
            refused += 1
            if len(str(error).splitlines()) != 1:
                raise
        assert time.process_time() - started < SECONDS
    assert peak() - before < MEBIBYTES
    return refused


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_images(count: int, tmp_path: Path) -> None:
    def read(content: bytes, chance: random.Random) -> None:
        path = tmp_path / f"image{chance.choice(EXTENSIONS)}"
        path.write_bytes(content)
        assert decode_image(path, enough=chance.choice((None, 8))).mode == "RGB"

    assert fuzz(count, images(), read) > count / 4


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_model_files(count: int, tmp_path: Path) -> None:
    def read(content: bytes, chance: random.Random) -> None:
        (tmp_path / "model.safetensors").write_bytes(content)
        load_model(tmp_path)

    assert fuzz(count, [whole_model()], read) > count * 0.9
