"""Signals, kills, damaged files, bad inputs, faults of the machine and wrong arguments; what goes wrong is counted.

``python benchmarks/border_campaign.py --out results/border_campaign`` carries out ``SIZES`` cases of each part, or the
share ``--scale`` of them. Each case is drawn from ``--seed``, its part and its number, and is a line of PART.jsonl at
once: a campaign that was stopped goes on, and two of them with other ``--only`` parts may run side by side. Most cases
are forks of a process that has imported torch. counts.json has the cases, exit codes and faults of all parts:

- exit_70: a bug by mixskd's own word; traceback: one on stderr; hang: more than 120 s;
- silent: a damaged file that decides a score was accepted, and the result differs or the stored values do;
- refused whole: a file without damage was refused; deep: a Python function failed with another error than its own;
- bits: a run that was stopped and resumed has other bits in its weights, metrics.csv or splits.csv;
- other end: an exit code that nothing explains.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from border_damages import STRANGE_VALUES, damaged, mutated
from border_processes import Ended, Stop, call, pair, whole_process
from PIL import Image

import mixskd
from mixskd.config import known_keys
from mixskd.errors import UserError
from mixskd.runtime.json_file import write_json

SIZES = {"signals": 132, "torchrun": 16, "files": 874, "inputs": 989, "machine": 89, "arguments": 157}
RUNS = 50  # that get the signals
CPU = ["--run.device", "cpu", "--run.precision", "fp32", "--run.progress", "false"]
NET = ["--backbone", "wrn_10_1", "--batch-size", "8", *CPU]
EQUAL = ("model.safetensors", "metrics.csv", "splits.csv")
TEXTS = ("", "-1", "0", "1e308", "nan", "inf", "9" * 5000, "9" * 20, "[]", "{}", "[1,2", "null", "true", "\udcff",
         "\x1b[2J", "../..", "/", "/dev/null", ".", "timm/hf-hub:x/y", "x" * 10_000, "1:2:3", "1_0", "\uff11", "0x10",
         "--", "~", "*", "{0..9999999}", "(a{999999999})", "\n", "a,a", "a b")  # fmt: skip
Case = dict[str, Any]


def png(numbers: np.random.Generator, size: int = 12, mode: str = "RGB") -> bytes:
    """A small image of random pixels."""
    content = BytesIO()
    pixels = numbers.integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(content, "PNG")
    return content.getvalue()


def make_data(data: Path) -> None:
    """Arrays, a manifest, shards, boxes of COCO, YOLO and VOC, and masks, each tiny; and a grid and its settings."""
    numbers = np.random.default_rng(0)
    for folder in ("boxes/train", "boxes/val", "yolo/images/train", "yolo/labels/train", "voc/Annotations",
                   "voc/JPEGImages", "voc/ImageSets/Main", "masks/images/train", "masks/images/val",
                   "masks/masks/train", "masks/masks/val"):  # fmt: skip
        (data / folder).mkdir(parents=True)
    images = numbers.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    np.savez(data / "toy.npz", train_images=images, train_labels=np.arange(24) % 2)
    rows = ["path,label,split"]
    for split, count in (("train", 8), ("test", 4)):
        with tarfile.open(data / f"{split}-0000.tar", "w") as shard:
            for i in range(count):
                content = png(numbers)
                (data / f"{split}{i}.png").write_bytes(content)
                rows.append(f"{split}{i}.png,{'ab'[i % 2]},{split}")
                for name, part in ((f"{i}.png", content), (f"{i}.cls", b"%d" % (i % 2))):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(part)
                    shard.addfile(entry, BytesIO(part))
    (data / "list.csv").write_text("\n".join(rows) + "\n")
    for split in ("train", "val"):
        listing: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cell"}]}
        for i in range(4):
            (data / "boxes" / split / f"{i}.png").write_bytes(png(numbers, 64))
            listing["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
            box = {"id": i, "image_id": i, "category_id": 3, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
            listing["annotations"].append(box)
            (data / "masks/images" / split / f"{i}.png").write_bytes(png(numbers, 32))
            mask = numbers.integers(0, 2, (32, 32), dtype=np.uint8)
            Image.fromarray(mask).save(data / "masks/masks" / split / f"{i}.png")
        (data / "boxes" / f"{split}.json").write_text(json.dumps(listing))
    (data / "masks/classes.txt").write_text("sky\nroad\n")
    (data / "yolo/data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames: {0: cell, 1: x}\n")
    for i in range(3):
        (data / f"yolo/images/train/{i}.png").write_bytes(png(numbers, 64))
        (data / f"yolo/labels/train/{i}.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.125 0.125\n")
        (data / f"voc/JPEGImages/{i}.png").write_bytes(png(numbers, 64))
        (data / f"voc/Annotations/{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>64</width><height>64</height></size><object>"
            "<name>cell</name><difficult>0</difficult><bndbox><xmin>4</xmin><ymin>4</ymin><xmax>30</xmax>"
            "<ymax>30</ymax></bndbox></object></annotation>"
        )
    for split in ("train", "val"):
        (data / f"voc/ImageSets/Main/{split}.txt").write_text("0\n1\n2\n")
    (data / "grid.yaml").write_text(
        f"data: {data / 'toy.npz'}\nbackbones: [wrn_10_1]\nmethods: {{baseline: {{}}, mixup: {{alpha: 0.2}}}}\n"
        "seeds: [0, 1]\nrun: {epochs: 2, device: cpu}\noptim: {lr: 0.1}\n"
    )
    (data / "settings.yaml").write_text(
        f"backbone: wrn_10_1\nmethod: {{name: mixup, alpha: 0.2}}\ndata: {{source: {data / 'toy.npz'}}}\n"
        "optim: {lr: 0.1, milestones: [1, 2], warmup_epochs: 1, schedule: step}\nrun: {epochs: 3, batch_size: 8}\n"
    )


class Campaign:
    """The files of the campaign, and one method a part, which yields cases."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.data = folder, seed, folder / "data"
        self.run, self.half, self.place = folder / "runs" / "whole", folder / "half", folder / "place"
        make_data(self.data)
        self.whole = call(self.train(self.run), folder)
        assert self.whole.code == 0, self.whole.error
        call(["evaluate", str(self.run), "--suite", "accuracy,calibration,fgsm"], folder)
        self.score = call(["evaluate", str(self.run), "--json"], folder)
        assert self.score.code == 0, self.score.error
        half = self.whole.events.index("s") + self.whole.events[self.whole.events.index("s") :].find("s", 60)
        for event in range(half, half + 200, 20):
            shutil.rmtree(self.half, ignore_errors=True)
            call(self.train(self.half), folder, stop=Stop(event, 0, signal.SIGTERM))
            if (self.half / "checkpoint.pt").exists() and not (self.half / "summary.json").exists():
                break
        self.bits_of_one = self.bits(self.run)

    def chance(self, part: str, number: int) -> random.Random:
        """The random numbers of one case."""
        return random.Random(f"{self.seed} {part} {number}")

    def train(self, out: Path, *more: str) -> list[str]:
        """The words of the run that most parts stop, damage or compare with."""
        return ["train", "--data", str(self.data / "toy.npz"), *NET, "--run.checkpoint-every-steps", "1",
                "--epochs", "3", "--method", "mixup", "--out", str(out), *more]  # fmt: skip

    def bits(self, run: Path) -> dict[str, str]:
        """The digests of what equal runs have equal."""
        return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in EQUAL if (run / name).exists()}

    def fresh(self) -> Path:
        """An empty folder for one case."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        return self.place

    def signals(self, number: int, share: int) -> Iterator[Case]:
        """All signals of one of the runs; each comes while the run works, else the run starts again."""
        chance, out = self.chance("signals", number), self.fresh() / "run"
        events, given, late = self.whole.events, 0, 0
        first = events.index("s")
        while given < share:
            argv = self.train(out, *(["--resume"] if (out / "config.yaml").exists() else []))
            sign = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            leaves = chance.random() < 0.15
            if leaves:
                ended = whole_process(argv, out / "summary.json", chance.uniform(0, 1), sign)
            else:
                start = chance.random() < 0.2 or late > 3
                event = chance.randrange(first) if start else chance.randrange(first, len(events))
                ended = call(argv, self.folder, stop=Stop(event, chance.choice((0, chance.uniform(0, 0.02))), sign))
            moment = "leaving" if leaves else "training" if "s" in ended.events else "starting"
            if ended.stopped:
                given += 1
            else:
                late += 1
                moment = "after the end"
            # Before training begins, a signal ends the process in the usual way.
            wrong = ended.code not in (0, None, 70, -sign, 128 + sign)
            yield case(f"{sign.name} while {moment}", argv, ended, "other end" if wrong else None)
            if ended.code == 0:
                yield self.compare_bits(out, self.bits_of_one, "bits of a run")
                shutil.rmtree(out)
        if out.exists():
            argv = self.train(out, *(["--resume"] if (out / "config.yaml").exists() else []))
            ended = call(argv, self.folder)
            yield case("last resume", argv, ended, "other end" if ended.code != 0 else None)
            yield self.compare_bits(out, self.bits_of_one, "bits of a run")

    def compare_bits(self, out: Path, whole: dict[str, str], kind: str) -> Case:
        """The case that a finished run in ``out`` has the bits of one that was left alone."""
        return case(kind, [str(out)], Ended(0), None if self.bits(out) == whole else "bits")

    def torchrun(self, number: int) -> Iterator[Case]:
        """Two processes; one of them or both get a signal, up to three times, until the run has ended."""
        chance, out = self.chance("torchrun", number), self.fresh() / "run"
        if not hasattr(self, "bits_of_two"):
            whole = pair(self.train(self.folder / "two"), self.folder, {})
            assert [end.code for end in whole] == [0, 0], whole[0].error + whole[1].error
            self.bits_of_two, self.events_of_two = self.bits(self.folder / "two"), whole[0].events
            shutil.rmtree(self.folder / "two")
        events = self.events_of_two
        for left in range(chance.randint(1, 3), -1, -1):
            stops = {}
            if left:
                sign = chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL))
                ranks = (0, 1) if sign != signal.SIGKILL else chance.choice(((0,), (1,), (0, 1)))
                event = chance.randrange(events.index("s"), len(events))
                stops = {rank: Stop(event, chance.uniform(0, 0.02), sign) for rank in ranks}
            argv = self.train(out, *(["--resume"] if (out / "config.yaml").exists() else []))
            for rank, ended in enumerate(pair(argv, self.folder, stops)):
                kind = f"{sign.name} to {'both' if len(stops) == 2 else 'one'}" if left else "last resume of two"
                explained = (0, 2, None, 70, *((-sign, 128 + sign) if left else ()))
                wrong = ended.code not in explained or (not left and ended.code != 0)
                yield case(kind, [f"rank {rank}", *argv], ended, "other end" if wrong else None)
        yield self.compare_bits(out, self.bits_of_two, "bits of two processes")

    def files(self, number: int) -> Iterator[Case]:
        """One damage to one file: of a run in three of five cases, else of a data set."""
        chance = self.chance("files", number)
        yield self.damaged_run(chance) if chance.random() < 0.6 else self.damaged_data(chance)

    def damaged_run(self, chance: random.Random) -> Case:
        """One damage to one file of a run, and a verb that reads it."""
        name = chance.choice(("checkpoint.pt", "checkpoint.pt", "model.safetensors", "splits.csv", "splits.csv",
                              "summary.json", "evaluation/accuracy.json", "evaluation/fgsm.json", "config.yaml",
                              "metrics.csv"))  # fmt: skip
        place, resumed = self.fresh(), name == "checkpoint.pt" or (name == "splits.csv" and chance.random() < 0.3)
        run = place / ("half" if resumed else "whole")
        shutil.copytree(self.half if resumed else self.run, run)
        for previous in run.glob("*.previous.pt"):
            previous.unlink()
        whole, path = (run / name).read_bytes(), run / name
        path.write_bytes(damaged(whole, chance))
        same, silent = path.read_bytes() == whole, False
        if resumed:  # the copy has another --out than its checkpoint, which is no part of what is compared
            argv = self.train(run, "--resume")
            ended = call(argv, self.folder)
            silent = ended.code == 0 and self.bits(run) != self.bits_of_one
        elif name in ("model.safetensors", "splits.csv", "config.yaml"):
            argv = ["evaluate", str(run), "--json"]
            ended = call(argv, self.folder)
            changed = not same if name == "splits.csv" else ended.out != self.score.out
            silent = ended.code == 0 and changed and name != "config.yaml"
        else:
            argv = ["report", str(run), "--out", str(place / "r.html")]
            if name == "summary.json":
                argv = chance.choice((argv, ["compare", "--table", str(place)], ["push", str(run), "--to-folder",
                                                                                 str(place / "card")]))  # fmt: skip
            ended = call(argv, self.folder)
            if ended.code == 0 and name.endswith(".json"):
                silent = json.loads(path.read_text()) != json.loads(whole)
        return case(f"damaged {name}", argv, ended, "silent" if silent else "refused whole" if same and ended.code
                    else None)  # fmt: skip

    def readers(self, place: Path) -> dict[str, list[str]]:
        """The words that read each file of the data in ``place``."""
        dry = [*NET, "--dry-run", "--epochs", "1"]
        work = ["--backbone", "timm/test_resnet", "--method.iterations", "1", "--epochs", "1", "--batch-size", "2",
                "--dry-run", "--out", str(place / "net"), *CPU, "--data"]  # fmt: skip
        boxes = ["detect", "train", "--method.short", "64", "--method.long", "64", "--method.channels", "8",
                 "--method.hidden", "16", "--method.rois", "8", "--method.proposals", "20", *work]  # fmt: skip
        masks = ["segment", "train", "--method.output-stride", "32", "--method.crop", "32", *work, str(place / "masks")]
        return {
            "toy.npz": ["train", "--data", str(place / "toy.npz"), *dry],
            "list.csv": ["train", "--data", str(place / "list.csv"), "--data.image-size", "8", *dry],
            "train-0000.tar": ["train", "--data", str(place / "train-{0000..0000}.tar"), "--data.image-size", "8",
                               *dry],
            "boxes/train.json": [*boxes, str(place / "boxes")], "boxes/train/0.png": [*boxes, str(place / "boxes")],
            "yolo/data.yaml": [*boxes, str(place / "yolo")], "yolo/labels/train/0.txt": [*boxes, str(place / "yolo")],
            "voc/Annotations/0.xml": [*boxes, str(place / "voc")], "masks/classes.txt": masks,
            "masks/masks/train/0.png": masks, "train0.png": ["predict", str(self.run), str(place / "train0.png")],
            "grid.yaml": ["compare", "--config", str(place / "grid.yaml"), "--dry-run", "--out", str(place / "grid")],
            "settings.yaml": ["train", "--config", str(place / "settings.yaml"), "--dry-run"],
        }  # fmt: skip

    def damaged_data(self, chance: random.Random) -> Case:
        """One damage to a data set, a grid or settings, and a dry run on it."""
        shutil.copytree(self.data, place := self.fresh() / "data")
        name, argv = chance.choice(list(self.readers(place).items()))
        path, whole = place / name, (place / name).read_bytes()
        path.write_bytes(damaged(whole, chance))
        ended = call(argv, self.folder)
        refused = path.read_bytes() == whole and ended.code
        return case(f"damaged {name}", argv, ended, "refused whole" if refused else None)

    def inputs(self, number: int) -> Iterator[Case]:
        """One value of a document that is not what it should be; digests fit, so that the value itself is examined."""
        chance = self.chance("inputs", number)
        yield chance.choice((self.document, self.document, self.stored, self.setting, self.strange_file))(chance)

    def document(self, chance: random.Random) -> Case:
        """COCO boxes, a grid, settings or a list of YOLO with one strange value."""
        shutil.copytree(self.data, place := self.fresh() / "data")
        name = chance.choice(("boxes/train.json", "boxes/train.json", "grid.yaml", "settings.yaml", "yolo/data.yaml"))
        path, text = place / name, (place / name).read_text()
        if name.endswith("json"):
            path.write_text(json.dumps(mutated(json.loads(text), chance), default=repr))
        else:
            with contextlib.suppress(yaml.YAMLError, UnicodeEncodeError, ValueError):
                path.write_text(yaml.safe_dump(mutated(yaml.safe_load(text), chance), allow_unicode=True))
        argv = self.readers(place)[name]
        more = ["--skip-bad-annotations"] if argv[0] == "detect" and chance.random() < 0.3 else []
        return case(f"value in {name}", argv, call([*argv, *more], self.folder))

    def stored(self, chance: random.Random) -> Case:
        """A summary or a suite's result with one strange value and a digest that fits."""
        run = self.fresh() / "whole"
        shutil.copytree(self.run, run)
        name = chance.choice(("summary.json", "summary.json", "evaluation/accuracy.json", "evaluation/calibration.json",
                              "evaluation/fgsm.json"))  # fmt: skip
        values = mutated({k: v for k, v in json.loads((run / name).read_text()).items() if k != "digest"}, chance)
        try:
            write_json(run / name, values)
        except (UnicodeEncodeError, UserError, ValueError):
            (run / name).write_text(json.dumps(values))
        argv = ["report", str(run), "--out", str(self.place / "r.html")]
        if name == "summary.json":
            argv = chance.choice((argv, ["compare", "--table", str(self.place)], ["evaluate", str(run), "--json"],
                                  ["push", str(run), "--to-folder", str(self.place / "card")]))  # fmt: skip
        return case(f"value in {name} for {argv[0]}", argv, call(argv, self.folder))

    def setting(self, chance: random.Random) -> Case:
        """One or two settings with text that does not fit."""
        argv = ["train", "--data", str(self.data / "toy.npz"), *NET, "--epochs", "1", "--dry-run"]
        for _ in range(chance.choice((1, 1, 2))):
            argv += [f"--{chance.choice(sorted(known_keys())).replace('_', '-')}", chance.choice(TEXTS)]
        with contextlib.chdir(self.fresh()):
            return case("settings", argv, call(argv, self.folder))

    def strange_file(self, chance: random.Random) -> Case:
        """Arrays, images, rows, shards and boxes that can be read, but not used."""
        shutil.copytree(self.data, place := self.fresh() / "data")
        numbers = np.random.default_rng(chance.randrange(2**32))
        name = chance.choice(("toy.npz", "toy.npz", "list.csv", "train-0000.tar", "train0.png", "boxes/train/0.png",
                              "masks/masks/train/0.png", "yolo/labels/train/0.txt",
                              "voc/Annotations/0.xml"))  # fmt: skip
        path = place / name
        if name == "toy.npz":
            with np.load(path) as file:
                arrays = dict(file)
            key = chance.choice(list(arrays))
            change: Callable[[np.ndarray], np.ndarray] = chance.choice((
                lambda a: a.astype(chance.choice(("f4", "i8", "?", "c8", "U3", "M8[s]", "f2", "i1"))),
                lambda a: a[: chance.randrange(4)], lambda a: a[..., None], lambda a: a.reshape(-1), lambda a: -a,
                lambda a: np.array(chance.choice(STRANGE_VALUES[:11])), lambda a: a.astype("f8") * np.nan,
                lambda a: a[..., ::-1], lambda a: np.broadcast_to(a, (3, *a.shape)),
            ))  # fmt: skip
            arrays[chance.choice((key, key, f"{key}x", "val_images"))] = change(arrays[key])
            np.savez(path, **arrays)
        elif name.endswith("png"):
            mode = chance.choice(("1", "L", "LA", "P", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr"))
            size = (chance.choice((1, 3, 64, 2000)), chance.choice((1, 5, 64, 3000)))
            kind = chance.choice(("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "ICO", "PPM"))
            with contextlib.suppress(OSError, ValueError):
                Image.new(mode, size, 1).save(path, kind)
        elif name == "train-0000.tar":
            with tarfile.open(path, chance.choice(("w", "w:gz"))) as shard:
                for i in range(chance.choice((0, 1, 4))):
                    label = str(chance.choice(TEXTS)).encode(errors="replace")
                    for member, part in ((f"{i}.png", png(numbers)), (f"{i}.{chance.choice(('cls', 'json'))}", label)):
                        entry = tarfile.TarInfo(chance.choice((member, member, f"../{member}", f"a/{member}")))
                        entry.size, entry.type = len(part), chance.choice((tarfile.REGTYPE,) * 5 + (tarfile.SYMTYPE,))
                        shard.addfile(entry, BytesIO(part))
        else:
            text = path.read_text()
            old = chance.choice(text.replace(",", " ").replace("<", " ").replace(">", " ").split())
            path.write_text(text.replace(old, chance.choice(TEXTS), chance.choice((1, -1))), errors="replace")
        return case(f"strange {name}", argv := self.readers(place)[name], call(argv, self.folder))

    def machine(self, number: int) -> Iterator[Case]:
        """A fault of the machine in the middle of a verb; a run that it stops goes on to the same bits."""
        chance, place = self.chance("machine", number), self.fresh()
        out, environment, before, kind = place / "run", {}, None, FAULTS[number % len(FAULTS)]
        argv = self.train(out)
        if chance.random() < 0.35:
            shutil.copytree(self.run, place / "whole")
            argv = chance.choice((["report", str(place / "whole"), "--out", str(place / "r.html")],
                                  ["evaluate", str(place / "whole"), "--suite", "calibration"],
                                  ["export", str(place / "whole"), "--to", "safetensors", "--out", str(place / "m")],
                                  ["predict", str(place / "whole"), str(self.data / "train0.png"), "--out",
                                   str(place / "p.csv")],
                                  ["compare", "--table", str(place)]))  # fmt: skip
        if kind in ("few file handles", "tiny shared memory"):
            argv = ["train", "--data", str(self.data / "list.csv"), "--data.image-size", "8", *NET, "--epochs", "3",
                    "--data.workers", "2", "--run.checkpoint-every-steps", "1", "--out", str(out)]  # fmt: skip
        whole = None
        if argv[0] == "train":
            whole = self.bits_of_one
            if "--data.workers" in argv:
                call([*argv[:-1], str(place / "left")], self.folder)
                whole = self.bits(place / "left")
        if kind.startswith("errno "):
            before = failing(int(kind.split()[1]), chance.randrange(60), place)
        elif kind == "no environment":
            environment = {"HOME": "/nowhere", "XDG_CACHE_HOME": "/proc/none", "TMPDIR": "/nowhere", "TERM": "dumb",
                           "COLUMNS": "x"}  # fmt: skip
        elif kind == "torchrun's variables":
            environment = chance.choice(({"WORLD_SIZE": "2"}, {"WORLD_SIZE": "x"}, {"RANK": "1"}, {"LOCAL_RANK": "y"},
                                         {"WORLD_SIZE": "2", "RANK": "5", "LOCAL_RANK": "0"}))  # fmt: skip
        else:
            size = chance.choice((64, 512, 2048))
            before = {
                "few file handles": lambda: limit(resource.RLIMIT_NOFILE, chance.randint(16, 40)),
                "largest file": lambda: limit(resource.RLIMIT_FSIZE, chance.choice((1000, 30_000, 200_000))),
                "little memory": lambda: limit(resource.RLIMIT_AS, used_memory() + chance.choice((1, 20, 80)) * 2**20),
                "tiny shared memory": lambda: mounted(Path("/dev/shm"), 4),
                "full disk": lambda: mounted(place, size),
                "read-only disk": lambda: mounted(place, size, "ro"),
                "closed output": lambda: os.close(chance.choice((1, 2))),
                "output to nobody": broken_output,
                "output to a full disk": full_output,
                "current folder is gone": lambda: gone(place / "gone"),
            }[kind]
            if kind in ("full disk", "read-only disk") and argv[0] != "train":
                argv = self.train(out)
                whole = self.bits_of_one
        ended = call(argv, self.folder, before=before, environment=environment)
        wrong = ended.code not in (0, 1, 2, 120, None, 70, 128 + signal.SIGPIPE)
        yield case(kind, argv, ended, "other end" if wrong else None)
        if whole is not None and not kind.endswith("disk"):
            again = [*argv, *(["--resume"] if (out / "config.yaml").exists() else [])]
            if (ended := call(again, self.folder)).code != 0:
                yield case("resume after a fault of the machine", again, ended, "other end")
            else:
                yield self.compare_bits(out, whole, "bits after a fault of the machine")

    def arguments(self, number: int) -> Iterator[Case]:
        """Strange flags of a verb, or a strange argument of a Python function."""
        chance = self.chance("arguments", number)
        with contextlib.chdir(self.fresh()):
            yield (self.flags if number % 2 else self.python)(chance)

    def flags(self, chance: random.Random) -> Case:
        """A verb with one or two strange flags, or a word too many."""
        verb = list(chance.choice((
            ["show-data", "--data", str(self.data / "toy.npz")], ["evaluate", str(self.run)], ["report", str(self.run)],
            ["predict", str(self.run), str(self.data / "train0.png")], ["export", str(self.run)],
            ["calibrate", str(self.run)], ["compare", "--table", str(self.run.parent)], ["list"],
            ["benchmark", "--dry"], ["push", str(self.run)], ["tune", "--dry"], ["probe"], ["find-lr", "--epochs"],
            ["detect", "train", "--dry-run"], ["segment", "predict", str(self.run), str(self.data / "train0.png")],
            ["train", "--data", str(self.data / "toy.npz"), *NET, "--epochs", "1", "--dry-run"],
        )))  # fmt: skip
        flags = ["--batch-size", "--out", "--data", "--split", "--suite", "--format", "--backbone", "--method",
                 "--weights", "--json", "--top", "--epochs", "--seeds", "--config", "--workers", "--device", "--to",
                 "--threshold", "--temperature", "--jobs", "--folds", "--size", "--images", "--help"]  # fmt: skip
        for _ in range(chance.choice((1, 1, 2))):
            verb += [chance.choice(flags), chance.choice(TEXTS)]
        if chance.random() < 0.1:
            verb.insert(chance.randrange(len(verb)), chance.choice(TEXTS))
        return case(f"flags of {verb[0]}", verb, call(verb, self.folder))

    def python(self, chance: random.Random) -> Case:
        """A public function, or a method and its call, with one argument that is not what it should be."""
        import torch

        strange = (*STRANGE_VALUES, np.zeros(3), torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8).double(), object(),
                   Path("/"), Path("\x00"), b"x", torch.zeros(0, 3, 8, 8), torch.tensor(float("nan")))  # fmt: skip
        images, labels = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
        run, file = str(self.run), str(self.data / "train0.png")
        settings = {"epochs": 1, "batch_size": 8, "device": "cpu", "progress": False}
        functions: list[tuple[Callable[..., Any], dict[str, Any]]] = [
            (mixskd.build_backbone, {"name": "wrn_10_1", "num_classes": 5}),
            (mixskd.evaluate, {"path": run, "data": None, "split": "test", "batch_size": 4}),
            (mixskd.predict, {"path": run, "images": [file], "top": 2, "batch_size": 4, "threshold": 0.5}),
            (mixskd.report, {"runs": run, "out": "r.html", "figures": None}),
            (mixskd.calibrate, {"path": run, "coverage": 0.9, "target_accuracy": None}),
            (mixskd.load, {"path": run}), (mixskd.push, {"path": run, "to_folder": "card", "repository": None}),
            (mixskd.export, {"path": run, "to": "safetensors", "out": "m", "temperature": 1.0}),
            (mixskd.run_suites, {"runs": [run], "suites": "calibration", "sede": 1}),
            (mixskd.train, {"data": str(self.data / "toy.npz"), "backbone": "wrn_10_1", "method": "mixup",
                            "run": settings, "dry_run": True, "out": "run", "optim": {"lr": 0.1}, "listeners": ()}),
            (mixskd.show_data, {"data": str(self.data / "toy.npz"), "out": "d.png", "images": 2}),
            (mixskd.compare, {"data": str(self.data / "toy.npz"), "methods": "mixup", "backbones": "wrn_10_1",
                              "seeds": "0", "dry_run": True}),
            *[(one_step(name), {"classes": 2, "images": images, "labels": labels, "draws": None})
              for name in ("Mixup", "MixSKD", "PSKD", "Baseline")],
        ]  # fmt: skip
        function, given = chance.choice(functions)
        name = chance.choice([*given, *given, "unheard_of"])
        given[name] = value = chance.choice(strange)

        def act() -> int:
            try:
                function(**given)
            except UserError as error:
                print("UserError", str(error)[:300], file=sys.stderr)
                return 2
            except TypeError as error:
                if "()" not in str(error):
                    raise
                print("TypeError", str(error)[:300], file=sys.stderr)
                return 2
            return 0

        words = [getattr(function, "__name__", "?"), name, repr(value)[:60]]
        ended = call([], self.folder, act=act)
        return case(f"python {words[0]}", words, ended)


def one_step(name: str) -> Callable[..., Any]:
    """A function that builds a method on a small network and calls it."""

    def step(classes: Any, images: Any, labels: Any, draws: Any, **more: Any) -> None:
        backbone = mixskd.build_backbone("wrn_10_1", classes)
        method = getattr(mixskd, name)(backbone, **more)
        method(images, labels, *(() if draws is None else (draws,)))

    step.__name__ = name
    return step


FAULTS = [*(f"errno {number}" for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT,
                                             errno.EMFILE, errno.ESTALE)),
          "no environment", "torchrun's variables", "few file handles", "largest file", "little memory",
          "tiny shared memory", "full disk", "read-only disk", "closed output", "output to nobody",
          "output to a full disk", "current folder is gone"]  # fmt: skip


def failing(number: int, event: int, place: Path) -> Callable[[], None]:
    """The write number ``event`` within ``place``, and all after it, fail with errno ``number``."""

    def install() -> None:
        seen = 0

        def hook(name: str, words: Any) -> None:
            nonlocal seen
            written = name in ("os.rename", "os.mkdir", "os.remove") or (
                name == "open" and isinstance(words[2], int) and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if written and isinstance(words[0], str | os.PathLike) and str(place) in os.fspath(words[0]):
                seen += 1
                if seen > event % 12:
                    raise OSError(number, os.strerror(number), words[0])

        sys.addaudithook(hook)

    return install


def limit(kind: int, most: int) -> None:
    """Limit a resource of this process."""
    resource.setrlimit(kind, (most, most))


def used_memory() -> int:
    """The bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def mounted(place: Path, kibibytes: int, *options: str) -> None:
    """Put a file system of this size over ``place``, for this process and its children only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, (1 << 18) | (1 << 14), None):
        raise OSError(ctypes.get_errno(), "unshare")
    read_only = 1 if "ro" in options else 0
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", read_only, f"size={kibibytes}k".encode()):
        raise OSError(ctypes.get_errno(), "mount")


def broken_output() -> None:
    """Standard output goes to a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def full_output() -> None:
    """Standard output goes to a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def gone(folder: Path) -> None:
    """The current folder is removed."""
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def case(kind: str, argv: list[str], ended: Ended, more: str | None = None) -> Case:
    """What is kept of a case: its kind and exit code; with a fault also the words and what was said."""
    kept: Case = {"kind": kind, "code": ended.code}
    if fault := ended.fault() or ("deep" if ended.code == 99 else None) or more:
        kept |= {"fault": fault, "argv": [word[:200] for word in argv], "error": ended.error[-700:]}
        print(kind, fault, argv[:2], argv[-4:], ended.error[-400:], flush=True)
    return kept


def carry_out(campaign: Campaign, part: str, size: int, log: Path) -> None:
    """All cases of ``part`` that ``log`` does not have yet."""
    done = {json.loads(line)["number"] for line in log.read_text().splitlines()} if log.exists() else set()
    runs = max(size * RUNS // SIZES["signals"], 1)
    for number in range(runs if part == "signals" else size):
        if number in done:
            continue
        share = [size // runs + (number < size % runs)] if part == "signals" else []
        cases = list(getattr(campaign, part)(number, *share))
        with log.open("a") as file:
            for one in cases:
                file.write(json.dumps({"number": number, **one}).replace(str(campaign.folder), "FOLDER") + "\n")


def counts(out: Path, seed: int) -> dict[str, Any]:
    """The cases, faults and exit codes of all parts whose log lies in ``out``."""
    parts, faults = {}, Counter[str]()
    for part in SIZES:
        if (log := out / f"{part}.jsonl").exists():
            cases = [json.loads(line) for line in log.read_text().splitlines()]
            kinds: dict[str, Counter[str]] = {}
            for one in cases:
                kinds.setdefault(one["kind"], Counter())[str(one["code"])] += 1
            faults.update(one["fault"] for one in cases if "fault" in one)
            parts[part] = {
                "asked for": len({one["number"] for one in cases}),
                "cases": len(cases),
                "exit codes by kind": {kind: dict(found) for kind, found in sorted(kinds.items())},
            }
    return {"cases": sum(part["cases"] for part in parts.values()), "faults": dict(faults), "seed": seed, **parts}


def main() -> None:
    """Carry out the campaign, and write its logs and counts.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SIZES), help="the parts, separated by commas")
    parser.add_argument("--scale", type=float, default=1, help="the share of the cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/border_campaign"))
    arguments = parser.parse_args()

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder, began = Path(tempfile.mkdtemp()), time.monotonic()
    try:
        campaign = Campaign(folder, arguments.seed)
        for part in arguments.only.split(","):
            carry_out(campaign, part, max(round(SIZES[part] * arguments.scale), 1), arguments.out / f"{part}.jsonl")
            print(part, "after", round((time.monotonic() - began) / 60, 1), "minutes", flush=True)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    found = counts(arguments.out, arguments.seed)
    (arguments.out / "counts.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in ("cases", "faults")}))
    if found["faults"]:
        raise SystemExit("something went wrong; see the lines with a fault in the logs")


if __name__ == "__main__":
    main()
