"""Start, memory and order of an epoch with up to 1.28 million images: in folders, in a manifest, or in shards.

    python benchmarks/many_files.py --out results/benchmarks/many_files/two_cores.json
    python benchmarks/many_files.py --source manifest --out results/benchmarks/many_files/manifest.json
    python benchmarks/many_files.py --source shards --out results/benchmarks/many_files/shards.json

The files are hard links to small JPEG images, in 1,000 class folders of a temporary folder that is removed at the end.
If a size has more than ``--read`` new files, the script itself stores in the cache what a first start would find there:
all links to a file have its content. A manifest lists them in a random order. Shards are hard links to one tar file of
10,000 images. Each size is started in new processes, once for the new files, then ``--repeats``
times warm. Times are in seconds of
wall-clock and of CPU time. Memory is Linux's proportional share (PSS): memory that processes share is divided by their
number, so the sum over the processes is what the machine needs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixskd.data.sources.shards import _scan, stamp_of
from mixskd.data.verify_cache import FILE, VerifyCache

CLASSES = 1000
SOURCES = {"folder": "images", "manifest": "list.csv", "shards": "shards"}
LINKS = 50_000  # of one file; ext4 allows 65,000
SIDE = 8  # pixels, so that the first start takes minutes and not hours
EACH = 10_000  # images of a shard
SIZES = (10_000, 160_000, 1_280_000)


def write_images(folder: Path, first: int, last: int, cache: VerifyCache | None = None) -> None:
    """Make the images ``first`` to ``last`` - 1, and store in ``cache`` what verification would find of them."""
    records: dict[str, list[tuple[str, np.void]]] = {}
    source = folder / "source.jpg"
    for i in range(first, last):
        if i % LINKS == 0 or i == first:
            pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            source.unlink(missing_ok=True)
            Image.fromarray(pixels).save(source)
            os.utime(source, (1_700_000_000, 1_700_000_000))
            digest = np.void(hashlib.blake2b(source.read_bytes(), digest_size=16).digest())
            size, changed = source.stat().st_size, source.stat().st_mtime_ns
            record = np.array([(size, changed, SIDE * SIDE, digest)], FILE)
        home = folder / "images" / f"n{i % CLASSES:08}"
        if i < CLASSES:
            home.mkdir(parents=True)
        name = f"n{i % CLASSES:08}_{i}.JPEG"
        os.link(source, home / name)
        if cache is not None:
            records.setdefault(str(home), []).append((name, record))
    for home, found in records.items():
        assert cache is not None
        cache.add_files(home, [name.encode() for name, _ in found], np.concatenate([record for _, record in found]))
        cache.merge(home)


def write_manifest(folder: Path, size: int) -> None:
    """List the first ``size`` images in a random order, with label and split."""
    with (folder / "list.csv").open("w") as file:
        file.write("path,label,split\n")
        for i in np.random.default_rng(0).permutation(size).tolist():
            home = f"n{i % CLASSES:08}"
            file.write(f"images/{home}/{home}_{i}.JPEG,{home},{'train' if i % 101 else 'test'}\n")


def write_shards(folder: Path, size: int, cache: VerifyCache | None = None) -> None:
    """Make shards of ``EACH`` images in all, and store in ``cache`` what a first start would find of them."""
    first = folder / "shards" / "train-00000.tar"
    if not first.exists():
        first.parent.mkdir()
        stream = io.BytesIO()
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(stream, "JPEG")
        with tarfile.open(first, "w") as tar:
            for i in range(EACH):
                for name, content in ((f"{i}.jpg", stream.getvalue()), (f"{i}.cls", str(i % CLASSES).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        os.utime(first, (1_700_000_000, 1_700_000_000))
    for number in range(size // EACH):
        if not (shard := first.with_name(f"train-{number:05}.tar")).exists():
            os.link(first, shard)
    if cache is not None:
        index = _scan(first)
        for shard in first.parent.iterdir():
            cache.add_shard(shard, stamp_of(shard), index)
            records = np.full(EACH, np.array((0, 0, SIDE * SIDE, np.void(bytes(16))), FILE))
            content = np.float64(time.time()).tobytes() + records.tobytes()
            cache.add_shard(shard.with_name(f"{shard.name}:verified"), stamp_of(shard), content)


@contextmanager
def timed(result: dict[str, Any], name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result[name] = {
        "wall_seconds": round(time.perf_counter() - wall, 3), "cpu_seconds": round(time.process_time() - cpu, 3),
    }  # fmt: skip


def memory(process: int) -> dict[str, int]:
    """Bytes of a process: shared memory divided by the processes that share it, private, and all that is mapped."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"pss": 1024 * kilobytes["Pss"], "private": 1024 * private, "rss": 1024 * kilobytes["Rss"]}


def measure(images: str, workers: int, batches: int) -> dict[str, Any]:
    """One start with the files in ``images``, the order of an epoch, and the memory after some batches."""
    result: dict[str, Any] = {}
    with timed(result, "imports"):
        import torch

        from mixskd.config import DataConfig
        from mixskd.data import load_data, make_train_loader
    result["memory_after_imports"] = memory(os.getpid())
    config = DataConfig(source=images, image_size=32, workers=workers, holdout=0.01, duplicates="warn")
    with timed(result, "read"):  # names, labels and splits, without verification
        load_data(config, verify=False)
    with timed(result, "start"):
        with timed(result, "load"):
            data = load_data(config)
        with timed(result, "fingerprint"):
            print(data.fingerprint["digest"], file=sys.stderr)
        loader = make_train_loader(data, config, 256, torch.device("cpu"), seed=0)
    result["files"] = sum(map(len, data.splits.values()))
    with timed(result, "order_of_an_epoch"):
        loader.plan.epoch(1)
        loader.plan.seeds(1)
    epoch = loader.epoch(0)
    with timed(result, "batches"):
        for _ in range(min(batches, len(loader))):
            next(epoch)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    result["processes"] = [memory(process) for process in (os.getpid(), *map(int, children))]
    result["pss_per_process"] = round(statistics.mean(m["pss"] for m in result["processes"]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--read", type=int, default=200_000)
    parser.add_argument("--source", choices=SOURCES, default="folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.workers, options.batches)))
        return
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mixskd-many-files-") as name:
        folder, made = Path(name), 0
        environment = {**os.environ, "MIXSKD_VERIFIED": str(folder / "verified.sqlite"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--out", "-", "--measure", str(folder / SOURCES[options.source])]
        command += ["--workers", str(options.workers), "--batches", str(options.batches)]
        for size in sorted(options.sizes):
            stored = size - made > options.read
            os.environ["MIXSKD_VERIFIED"] = environment["MIXSKD_VERIFIED"]
            cache = VerifyCache()
            if options.source == "shards":
                write_shards(folder, size, cache if stored else None)
            else:
                write_images(folder, made, size, cache if stored else None)
            if options.source == "manifest":
                write_manifest(folder, size)
            cache.close()
            runs = [
                json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
                for _ in range(1 + options.repeats)
            ]
            line: dict[str, Any] = {
                "files": size, "new_files": size - made, "first_start": None if stored else runs[0]["load"],
                "cache_bytes": (folder / "verified.sqlite").stat().st_size,
            }  # fmt: skip
            for part in ("read", "load", "fingerprint", "start", "order_of_an_epoch"):
                line[f"warm_{part}"] = {
                    kind: statistics.median(run[part][kind] for run in runs[1:])
                    for kind in ("wall_seconds", "cpu_seconds")
                }
            for key in ("memory_after_imports", "processes", "pss_per_process"):
                line[key] = runs[-1][key]
            made = size
            lines.append(line)
            first = lines[0]
            if size > first["files"]:
                growth = sum(m["pss"] for m in line["processes"]) - sum(m["pss"] for m in first["processes"])
                line["bytes_per_file_and_process"] = round(growth / (size - first["files"]) / len(line["processes"]), 1)
            print(json.dumps({key: value for key, value in line.items() if key != "processes"}), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            about = {
                "source": options.source,
                "workers": options.workers,
                "batches": options.batches,
                "cores": os.cpu_count(),
                "sizes": lines,
            }
            options.out.write_text(json.dumps(about, indent=1) + "\n")
    draw_growth(lines, options.out)


def draw_growth(lines: list[dict[str, Any]], out: Path) -> None:
    """Beside ``out``, the seconds of a warm start and the megabytes of a process, by the number of files."""
    from mixskd.drawing.plots import line_plot

    files = [line["files"] / 1000 for line in lines]
    series = [
        ("warm start, seconds", files, [line["warm_start"]["wall_seconds"] for line in lines]),
        ("memory of a process, MB", files, [line["pss_per_process"] / 1e6 for line in lines]),
    ]
    line_plot(out.stem, "", series, "thousand files", "seconds, MB", log_x=True, log_y=True).write(out.parent)


if __name__ == "__main__":
    main()
