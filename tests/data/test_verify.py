from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixskd.config import DataConfig
from mixskd.data import DataBundle, load_data, verify
from mixskd.data.images import check_image
from mixskd.data.verify_cache import cache_file
from mixskd.data.verify_progress import Lines
from mixskd.errors import UserError
from tests.processes import Fork

COUNT = 12  # images of a folder
LAST_YEAR = 1_700_000_000  # a file that was changed just now is read again at the next start


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXSKD_VERIFIED", str(tmp_path / "cache" / "verified.sqlite"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(COUNT):
        write(tmp_path / "images" / "ab"[i % 2] / f"{i}.png", i)
    return tmp_path / "images"


def write(file: Path, colour: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), (colour, 100, 200)).save(file)
    os.utime(file, (LAST_YEAR, LAST_YEAR))
    return file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in order."""
    names: list[str] = []

    def read(content_of: object, path: Path, *rest: object, **options: object) -> int:
        names.append(Path(path).name)
        return check_image(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(verify, "check_image", lambda *given, **options: read(None, *given, **options))
    return names


def load(source: Path, **options: object) -> DataBundle:
    return load_data(DataConfig(source=str(source), image_size=8, **options))  # type: ignore[arg-type]


def test_warm_start_opens_no_image_file(folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(folder)
    assert len(reads) == COUNT
    opened: list[str] = []
    watching = True  # a hook cannot be removed
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None)
    (folder / "a" / "0.png").read_bytes()
    warm = load(folder)
    watching = False
    assert [Path(name).name for name in opened if name.endswith(".png")] == ["0.png"]
    assert len(reads) == COUNT
    for split in ("train", "test"):
        assert first.splits[split].images == warm.splits[split].images
        expected = [hashlib.blake2b(i.read_bytes(), digest_size=16).digest() for i in warm.splits[split].images]
        for data in (first, warm):
            digests = data.splits[split].digests
            assert digests is not None
            assert [digest.tobytes() for digest in digests] == expected


@pytest.mark.parametrize("change", ["time", "size", "name"])
def test_changed_file_is_read_again(folder: Path, reads: list[str], change: str) -> None:
    load(folder)
    file = folder / "a" / "4.png"
    if change == "time":
        os.utime(file, (LAST_YEAR, LAST_YEAR + 1))
    elif change == "size":
        file.write_bytes(file.read_bytes() + b"more")
        os.utime(file, (LAST_YEAR, LAST_YEAR))
    else:
        file = file.rename(folder / "a" / "44.png")
    del reads[:]
    load(folder)
    assert reads == [file.name]
    load(folder)
    assert reads == [file.name]


def test_file_that_was_changed_just_now_is_not_kept(folder: Path, reads: list[str]) -> None:
    os.utime(folder / "b" / "1.png")
    load(folder)
    del reads[:]
    load(folder)
    assert reads == ["1.png"]


def test_unreadable_files_are_read_at_each_start(folder: Path, reads: list[str]) -> None:
    bad = folder / "a" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    os.utime(bad, (LAST_YEAR, LAST_YEAR))
    for _ in range(2):
        del reads[:]
        data = load(folder, skip_bad_images=True)
        assert "left out 1 unreadable image" in data.notes[0]
        assert bad.name in reads
    assert reads == [bad.name]
    with pytest.raises(UserError, match=r"cannot read the image .*0\.png"):
        load(folder)


def test_verify_settings(folder: Path, reads: list[str]) -> None:
    load(folder)
    del reads[:]
    load(folder, verify="full")
    assert len(reads) == COUNT
    load(folder)
    assert len(reads) == COUNT
    truncated = write(folder / "a" / "90.png", 90)
    truncated.write_bytes(truncated.read_bytes()[:60])
    assert load(folder, verify="headers").train.digests is None
    assert load(folder, verify="off").train.digests is None
    (folder / "a" / "91.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read the image .*91\.png"):
        load(folder, verify="headers")
    assert load(folder, verify="off").train.digests is None


def test_limit_on_pixels_applies_to_cached_results(folder: Path, reads: list[str]) -> None:
    load(folder, max_pixels=72)
    with pytest.raises(UserError, match="cannot read the image"):
        load(folder, max_pixels=71)
    del reads[:]
    load(folder, max_pixels=72)
    assert not reads


def damage(kind: str) -> None:
    path = cache_file()
    if kind == "text":
        path.write_text("no database\n" * 100)
    elif kind == "foreign":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (x)")
        other.close()
    elif kind == "version":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif kind == "torn":
        content = bytearray(path.read_bytes())
        content[100:8192] = bytes(8092)
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.execute("UPDATE folders SET files = zeroblob(length(files))")
        connection.commit()
        connection.close()


@pytest.mark.parametrize("kind", ["text", "foreign", "version", "torn", "record"])
def test_damaged_cache_is_rebuilt(folder: Path, reads: list[str], kind: str) -> None:
    first = load(folder)
    damage(kind)
    del reads[:]
    again = load(folder)
    assert len(reads) == COUNT
    assert np.array_equal(first.train.digests, again.train.digests)  # type: ignore[arg-type]
    assert any("is built anew" in note for note in again.notes) == (kind != "record")
    assert not load(folder).notes
    assert len(reads) == COUNT


def test_cache_that_cannot_be_written_is_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXSKD_VERIFIED", "/dev/null/none")
    assert "cannot be used" in load(folder).notes[0]


def verify_slowly(folder: Path, counts: Path) -> None:
    check = verify.check_image

    def slow(*given: Any, **options: Any) -> Any:
        time.sleep(0.05)
        with counts.open("a") as file:
            file.write("x")
        return check(*given, **options)

    verify.check_image = slow
    load_data(DataConfig(source=str(folder), image_size=8, verify="full"))


def test_processes_verify_once(folder: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    forks = [Fork(tmp_path / f"log{i}", verify_slowly, folder, counts) for i in (1, 2)]
    for fork in forks:
        fork.succeed()
    assert counts.stat().st_size in (COUNT, 2 * COUNT)  # twice if the second started after the first had finished
    if counts.stat().st_size == COUNT:
        assert "another process verifies images" in "".join(fork.said for fork in forks)


def test_waiting_process_takes_the_results_of_the_first(folder: Path, reads: list[str]) -> None:
    files = load(folder, verify="off").train.images
    del reads[:]
    with ThreadPoolExecutor() as pool, verify.VerifyCache().only_writer(lambda: None):
        waiting = pool.submit(verify.examine, files, 100, [], renew=True)  # type: ignore[arg-type]
        time.sleep(0.3)
        found = np.zeros(len(files), verify.FILE)
        cache = verify.VerifyCache()
        known = verify._OfFiles(files, found, cache)  # type: ignore[arg-type]
        verify._read_and_store(verify.Reader(files, 100, None), found, np.arange(len(files)), known)  # type: ignore[arg-type]
        cache.close()
        assert len(reads) == len(files)
    assert np.array_equal(waiting.result(), found)
    assert len(reads) == len(files)


def test_workers_read_as_one_process_and_leave_the_generator_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = load(folder).train.digests
    for cores in (1, 2):
        monkeypatch.setattr(verify, "FEW", 4)
        monkeypatch.setattr(verify, "usable_cores", lambda n=cores: n)
        state = torch.get_rng_state()
        digests = load(folder, verify="full").train.digests
        assert torch.equal(state, torch.get_rng_state())
        assert np.array_equal(alone, digests)  # type: ignore[arg-type]


def test_interrupted_verification_keeps_what_it_has_read(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = verify._read

    def interrupted(*given: object, **options: object) -> Iterator[tuple[int, int, bytes]]:
        for number, result in enumerate(read(*given, **options)):  # type: ignore[arg-type]
            if number == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(verify, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    monkeypatch.setattr(verify, "_read", read)
    del reads[:]
    load(folder)
    assert len(reads) == COUNT - 5
    connection = sqlite3.connect(cache_file())
    rows = connection.execute("SELECT count(*), count(DISTINCT folder) FROM folders").fetchone()
    connection.close()
    assert rows == (2, 2)


def test_progress_in_a_log_shows_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 10.0, 40.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    show = Lines("verifying images", 1000)
    show(50)
    show(250)
    assert capsys.readouterr().err == "verifying images: 250 of 1,000, 2 min left\n"
