"""WebDataset shards: tar files with KEY.jpg beside KEY.cls or KEY.json, read at any place, so that resume stays exact.

The ``webdataset`` package streams them in an order that cannot be taken up again at a step. Here the place of each
member is noted once, so that the images of shards are shuffled, divided and resumed like those of a folder.
"""

import hashlib
import json
import math
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixskd.data.bundle import MOST_CLASSES, DataBundle, ImageSet
from mixskd.data.images import EXTENSIONS
from mixskd.data.preprocess import Preprocess
from mixskd.data.sources.folder import NAMES
from mixskd.data.verify_cache import JUST_CHANGED, VerifyCache
from mixskd.errors import UserError, first_line
from mixskd.errors.text import shown

MEMBER = np.dtype([("offset", "<i8"), ("size", "<i8")])
SCANNED = np.dtype([("member", MEMBER), ("label", "<i8"), ("checksum", "V32")])  # what is found in a tar file
MOST_SHARDS = 100_000
RANGE = r"\{(\d+)\.\.(\d+)\}"
LARGEST_LABEL_FILE = 1_000_000  # bytes
JSON_KEYS = ("label", "cls", "class", "target")


class Member(NamedTuple):
    """An image file within a shard; ``checksum`` is the SHA-256 of its bytes, or empty if the shard has none."""

    shard: Path
    offset: int
    size: int
    checksum: bytes = b""

    def read(self) -> bytes:
        """The bytes of the file. Raises UserError if they do not match the checksum."""
        with self.shard.open("rb") as opened:
            opened.seek(self.offset)
            content = opened.read(self.size)
        if self.checksum and hashlib.sha256(content).digest() != self.checksum:
            raise UserError(f"{self} does not match its checksum in {checksum_file(self.shard)}; copy the shard again")
        return content

    def __str__(self) -> str:
        return f"{self.shard} (at byte {self.offset})"


class Members(Sequence[Member]):
    """Many members in little memory.

    Args:
        shards: the tar files.
        shard: the number of each member's shard, ``N``.
        places: a record of :data:`MEMBER` each, ``N``.
        checksums: SHA-256 of each member's bytes (``V32``, ``N``), or None.
    """

    def __init__(
        self, shards: Sequence[Path], shard: np.ndarray, places: np.ndarray, checksums: np.ndarray | None
    ) -> None:
        self.shards, self.shard, self.places, self.checksums = shards, shard, places, checksums

    @property
    def parts(self) -> list[tuple[Path, str, int]]:
        """Each shard, its stamp, and where its members end."""
        ends = np.cumsum(np.bincount(self.shard, minlength=len(self.shards))).tolist()
        return [(shard, stamp_of(shard), end) for shard, end in zip(self.shards, ends, strict=True)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        checksums = None if self.checksums is None else self.checksums[index]
        if isinstance(index, slice | np.ndarray):
            return Members(self.shards, self.shard[index], self.places[index], checksums)
        offset, size = self.places[index].tolist()
        return Member(self.shards[self.shard[index]], offset, size, b"" if checksums is None else checksums.tobytes())


def is_shards(source: str) -> bool:
    """Whether ``source`` names tar files, or a folder of them."""
    path = Path(source).expanduser()
    return source.endswith(".tar") or (path.is_dir() and any(path.glob("*.tar")))


def load_shards(source: str, image_size: int) -> DataBundle:
    """The images in the shards that ``source`` names: ``train-{0000..0015}.tar``, several such joined by ``::``, or a
    folder with ``train-*.tar``.

    ``val-*.tar`` (or ``valid-``, ``validation-``, ``dev-``) and ``test-*.tar`` beside the first of them are the other
    splits. ``classes.txt`` there names the classes, one a line; without it they are called by their numbers. Raises
    UserError for a shard that is missing or no plain tar, or an image without a label.
    """
    folder = Path(source).expanduser()
    paths = sorted(folder.glob("train-*.tar")) if folder.is_dir() else [Path(p).expanduser() for p in expand(source)]
    if not paths:
        raise UserError(f"{folder} holds tar files but no train-*.tar; rename them, or name them: shards-{{0..9}}.tar")
    home, cache = paths[0].parent, VerifyCache()
    splits = {"train": read_index(paths, cache)}
    for split in ("val", "test"):
        for name in NAMES[split]:
            if found := [path for path in sorted(home.glob(f"{name}-*.tar")) if path not in paths]:
                if split in splits:
                    raise UserError(f"{home} has {split} shards under two names; keep one of them")
                splits[split] = read_index(found, cache)
    cache.close()
    train = splits["train"]
    names = home / "classes.txt"
    if names.is_file():
        try:
            classes = tuple(names.read_text(encoding="utf-8").split("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the names of the classes in {names}: {error}") from None
        classes = tuple(name.strip() for name in classes if name.strip())
    else:
        classes = tuple(map(str, range(int(train.labels.max()) + 1)))
    return DataBundle(splits, classes, Preprocess(image_size), notes=tuple(cache.notes))


def expand(source: str) -> list[str]:
    """``a-{00..02}.tar::b.tar`` as ``a-00.tar``, ``a-01.tar``, ``a-02.tar``, ``b.tar``.

    Raises UserError for more than 100,000 names.
    """
    patterns = source.split("::")
    if sum(map(_names, patterns)) > MOST_SHARDS:
        raise UserError(f"{shown(source)} names more than {MOST_SHARDS:,} shards; name fewer, or larger ones")
    return [name for pattern in patterns for name in _expand(pattern)]


def _names(pattern: str) -> int:
    """How many names ``pattern`` stands for; any number beyond the bound for more than it."""
    found = re.findall(RANGE, pattern)
    if any(len(end) > 9 for ends in found for end in ends):
        return MOST_SHARDS + 1
    return math.prod(max(0, int(last) - int(first) + 1) for first, last in found)


def _expand(pattern: str) -> list[str]:
    found = re.search(RANGE, pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [name for i in numbers for name in _expand(pattern[: found.start()] + i + pattern[found.end() :])]


def read_index(shards: Sequence[Path], cache: VerifyCache | None = None) -> ImageSet:
    """The images of ``shards`` in order, by their places. Only headers and labels are read, and only once."""
    cache = cache or VerifyCache()
    stamps = [stamp_of(shard) for shard in shards]
    found = [cache.shard(shard, stamp) for shard, stamp in zip(shards, stamps, strict=True)]
    missing = [i for i, content in enumerate(found) if content is None]
    with ThreadPoolExecutor() as pool:
        for i, content in zip(missing, pool.map(_scan, [shards[i] for i in missing]), strict=True):
            found[i] = content
            if is_settled(stamps[i]):
                cache.add_shard(shards[i], stamps[i], content)
    parts = [np.frombuffer(content or b"", SCANNED) for content in found]
    table = np.concatenate(parts)
    if not len(table):
        raise UserError(f"there is no image in {', '.join(map(str, shards[:3]))}; a shard holds KEY.jpg with KEY.cls")
    shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(part) for part in parts])
    has_checksums = any(len(stamp.split()) > 2 for stamp in stamps)
    checksums = np.ascontiguousarray(table["checksum"]) if has_checksums else None
    members = Members(shards, shard, np.ascontiguousarray(table["member"]), checksums)
    return ImageSet(members, np.ascontiguousarray(table["label"]))


def checksum_file(shard: Path) -> Path:
    """Where the checksums of the members of ``shard`` are, if there are any."""
    return shard.with_name(f"{shard.name}.sha256")


def stamp_of(shard: Path) -> str:
    """Size and time of the last change (ns) of a shard, and of its checksums if it has some."""
    parts = []
    for path in (shard, checksum_file(shard)):
        try:
            status = path.stat()
        except (OSError, ValueError):  # of a shard, this is reported when it is read
            continue
        parts += [str(status.st_size), str(status.st_mtime_ns)]
    return " ".join(parts)


def is_settled(stamp: str) -> bool:
    """Whether the last change is so old that another one would have another time."""
    return max(map(int, stamp.split()[1::2]), default=math.inf) < time.time_ns() - JUST_CHANGED


def _checksums(shard: Path) -> dict[str, bytes] | None:
    """The SHA-256 of each member of ``shard`` by its name, as ``sha256sum`` writes them; None if there is no file."""
    path = checksum_file(shard)
    found: dict[str, bytes] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            digits, name = line[:64], line[66:]
            found[name.removeprefix("./")] = bytes.fromhex(digits)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the checksums in {path}: {first_line(error)}") from None
    return found


def _scan(shard: Path) -> bytes:
    """The records (:data:`SCANNED`) of the images in ``shard``."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    checksums: dict[str, bytes] = {}
    known = _checksums(shard)

    def checksum(name: str) -> bytes:
        if known is None:
            return bytes(32)
        if len(found := known.get(name.removeprefix("./"), b"")) != 32:
            raise ValueError(f"{name} has no SHA-256 in {checksum_file(shard).name}")
        return found

    try:
        if shard.exists() and not shard.is_file():
            raise ValueError("it is a folder, a device or a pipe")
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as opened:
            for key, extension, member in _files(opened):
                if member.size < 0 or member.offset_data + member.size > size:
                    raise ValueError(f"{member.name} reaches beyond its end")
                if extension in EXTENSIONS:
                    images[key] = (member.offset_data, member.size)
                    checksums[key] = checksum(member.name)
                elif extension in (".cls", ".json"):
                    if member.size > LARGEST_LABEL_FILE:
                        raise ValueError(f"the label {member.name} has {member.size:,} bytes")
                    stream = opened.extractfile(member)
                    assert stream is not None
                    content = stream.read()
                    if known is not None and hashlib.sha256(content).digest() != checksum(member.name):
                        raise ValueError(f"{member.name} does not match its checksum")
                    labels[key] = _label(content, extension)
    except FileNotFoundError:
        raise UserError(f"there is no shard {shard}") from None
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = first_line(error)
        raise UserError(f"cannot read the shard {shard} ({reason}); it must be an uncompressed tar") from None
    if missing := sorted(images.keys() - labels.keys()):
        raise UserError(f"{shard}: the image {missing[0]} has no label; put {missing[0]}.cls with a number beside it")
    return np.array([(place, labels[key], checksums[key]) for key, place in images.items()], SCANNED).tobytes()


def _files(opened: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """WebDataset's convention: the key ends at the first dot of the file's name."""
    for member in opened:
        if member.isfile():
            folder, slash, name = member.name.rpartition("/")
            stem, dot, extension = name.partition(".")
            yield folder + slash + stem, (dot + extension).lower(), member


def _label(content: bytes, extension: str) -> int:
    value: Any
    if extension == ".cls":
        value = int(content)
    else:
        values = json.loads(content)
        if not isinstance(values, dict) or not (known := [key for key in JSON_KEYS if key in values]):
            raise ValueError(f"a .json file without {', '.join(JSON_KEYS)}")
        value = values[known[0]]
        value = int(value) if isinstance(value, str) else value
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise ValueError(f"a label must be a whole number from 0 to {MOST_CLASSES - 1}, not {shown(value)}")
    return value
