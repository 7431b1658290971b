"""Signals, kills, damaged files, bad inputs and wrong arguments against the command line; what goes wrong is counted.

``python benchmarks/border_campaign.py --minutes 12 --out results/border_campaign``. All is drawn from ``--seed``. Each
case is a process that starts as a fork of this one, which has imported torch; the rounds of torchrun use its launcher.
counts_seedN.json has the number of cases of each kind and of each fault:

- exit_70: a bug by mixskd's own word; traceback: one on stderr; hang: more than ``LIMIT`` seconds;
- silent: a damaged file that decides a score was accepted, and the result differs or the stored values do;
- refused whole: a file without damage was refused;
- bits: a run that was stopped and resumed has other bits in its weights, metrics.csv or splits.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets  # noqa: F401
import torchmetrics  # noqa: F401
from PIL import Image

import mixskd.__main__
import mixskd.deploy.predicting
import mixskd.evaluation.runner
import mixskd.reporting.page.report
import mixskd.training.run
from mixskd.config import known_keys

LIMIT = 120  # seconds, on a loaded machine
CPU = ["--run.device", "cpu", "--run.precision", "fp32", "--run.progress", "false"]
TRAIN = ["--backbone", "wrn_10_1", "--batch-size", "8", "--run.checkpoint-every-steps", "1", *CPU]
EQUAL = ("model.safetensors", "metrics.csv", "splits.csv")
FAULTS = ("exit_70", "traceback", "hang", "silent", "bits")


@dataclass
class Ended:
    """How a process ended: its exit code (None if it had to be killed) and its output."""

    code: int | None
    out: str
    error: str

    def fault(self) -> str | None:
        """The name of what is wrong with this end whatever the input was."""
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in self.error + self.out:
            return "traceback"
        return "exit_70" if self.code == 70 else None


def call(argv: list[str], folder: Path, stop: tuple[float, int] | None = None) -> Ended:
    """The end of ``mixskd argv`` in a fork; ``stop`` sends it a signal after so many seconds."""
    out, error = folder / "out.txt", folder / "error.txt"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        for path, number in ((out, 1), (error, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.setpgid(0, 0)
        sys.argv = ["mixskd", *argv]
        code = 99
        try:
            mixskd.__main__.run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 98
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    began, status = time.monotonic(), None
    while status is None and time.monotonic() - began < LIMIT:
        if stop is not None and time.monotonic() - began >= stop[0]:
            os.kill(child, stop[1])
            stop = None
        done, found = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(found) if done else None
        time.sleep(0.01)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return Ended(status, *(path.read_text(errors="replace") for path in (out, error)))


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 4))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def digit(content: bytes, chance: random.Random) -> bytes:
    """Another digit somewhere."""
    places = [place for place, byte in enumerate(content) if 48 <= byte < 58]
    place = chance.choice(places or [0])
    return content[:place] + b"%d" % ((content[place] + chance.randint(1, 9)) % 10) + content[place + 1 :]


def lines(content: bytes, chance: random.Random) -> bytes:
    """A line away, twice, or at another place."""
    parts = content.splitlines(keepends=True)
    line = parts.pop(chance.randrange(len(parts)))
    for _ in range(chance.randrange(3)):
        parts.insert(chance.randrange(len(parts) + 1), line)
    return b"".join(parts)


def words(content: bytes, chance: random.Random) -> bytes:
    """A word in place of another one, or of a value that no file should hold."""
    found = re.findall(rb"[\w.]+", content)
    strange = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"99999999999999999999", b'"\\ud800"', b"../../x", b"")
    old, new = chance.choice(found or [b""]), chance.choice((*strange, *found[:50]))
    return content.replace(old, new, chance.choice((1, -1)))


def relabel(content: bytes, chance: random.Random) -> bytes:
    """The name of an older or a newer format."""
    for name in (b"mixskd-model-", b"mixskd-checkpoint-", b"mixskd-summary-", b"mixskd-suite-"):
        if (at := content.find(name)) >= 0:
            at += len(name)
            return content[:at] + chance.choice(b"0123456789".decode()).encode() + flip(content[at + 1 :], chance)
    return flip(content, chance)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, flip, cut, digit, lines, words, relabel)


def png(chance: np.random.Generator, size: int = 12) -> bytes:
    content = BytesIO()
    Image.fromarray(chance.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


class Campaign:
    """The files of the campaign, its chance and its counts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance, self.numbers = folder, random.Random(seed), np.random.default_rng(seed)
        self.cases: Counter[str] = Counter()
        self.faults: dict[str, Counter[str]] = {}
        self.codes: dict[str, Counter[str]] = {}
        self.found: list[dict[str, Any]] = []
        self.make_data()

    def make_data(self) -> None:
        """Arrays, a manifest, shards and COCO boxes, each tiny."""
        data = self.folder / "data"
        (data / "boxes" / "train").mkdir(parents=True)
        (data / "boxes" / "val").mkdir()
        images = self.numbers.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
        np.savez(data / "toy.npz", train_images=images, train_labels=np.arange(24) % 2)
        rows = ["path,label,split"]
        for split, count in (("train", 8), ("test", 4)):
            with tarfile.open(data / f"{split}-0000.tar", "w") as shard:
                for i in range(count):
                    content = png(self.numbers)
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
                (data / "boxes" / split / f"{i}.png").write_bytes(png(self.numbers, 64))
                listing["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
                listing["annotations"].append(
                    {"id": i, "image_id": i, "category_id": 3, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
                )
            (data / "boxes" / f"{split}.json").write_text(json.dumps(listing))

    def judge(self, kind: str, argv: list[str], ended: Ended, more: str | None = None) -> None:
        """Count a case, and what is wrong with its end: its own fault, or ``more``."""
        self.cases[kind] += 1
        self.codes.setdefault(kind, Counter())[str(ended.code)] += 1
        if fault := ended.fault() or more:
            self.faults.setdefault(kind, Counter())[fault] += 1
            self.found.append(
                {"kind": kind, "fault": fault, "argv": argv, "code": ended.code, "error": ended.error[-600:]}
            )
            print(kind, fault, argv, ended.error[-200:], flush=True)

    def train(self, out: Path, *more: str) -> list[str]:
        return ["train", "--data", str(self.folder / "data" / "toy.npz"), *TRAIN, "--epochs", "3", "--method", "mixup",
                "--out", str(out), *more]  # fmt: skip

    def reference(self) -> None:
        """A finished run with suites, an unfinished one, and their results."""
        self.run = self.folder / "runs" / "whole"
        ended = call(self.train(self.run), self.folder)
        assert ended.code == 0, ended.error
        call(["evaluate", str(self.run), "--suite", "accuracy,calibration,fgsm"], self.folder)
        self.score = call(["evaluate", str(self.run), "--json"], self.folder)
        assert self.score.code == 0, self.score.error
        self.half = self.folder / "half"
        for _ in range(20):
            shutil.rmtree(self.half, ignore_errors=True)
            call(self.train(self.half), self.folder, stop=(self.chance.uniform(0.3, 3), signal.SIGTERM))
            if (self.half / "checkpoint.pt").exists() and not (self.half / "summary.json").exists():
                return
        raise SystemExit("no run could be stopped in time")

    def bits(self, run: Path) -> dict[str, str]:
        return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in EQUAL if (run / name).exists()}

    def damaged(self, content: bytes) -> bytes:
        """``content`` with a damage, or as it is now and then, when it must be accepted."""
        kind = self.chance.random()
        return content if kind < 0.05 else b"" if kind < 0.08 else self.chance.choice(DAMAGES)(content, self.chance)

    def damaged_run(self) -> None:
        """One damage to one file of a run, and the verbs that read it."""
        name = self.chance.choice(("checkpoint.pt", "model.safetensors", "splits.csv", "splits.csv", "summary.json",
                                   "evaluation/accuracy.json", "evaluation/fgsm.json", "config.yaml",
                                   "metrics.csv"))  # fmt: skip
        place = self.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        resumed = name == "checkpoint.pt" or (name == "splits.csv" and self.chance.random() < 0.3)
        run = place / ("half" if resumed else "whole")
        shutil.copytree(self.half if resumed else self.run, run)
        for previous in run.glob("*.previous.pt"):
            previous.unlink()
        whole, path = (run / name).read_bytes(), run / name
        path.write_bytes(self.damaged(whole))
        same = path.read_bytes() == whole
        kind = f"damaged {name}"
        if resumed:  # the copy has another --out than its checkpoint, which is no part of what is compared
            argv = self.train(run, "--resume")
            ended = call(argv, self.folder)
            wrong = ended.code == 0 and self.bits(run) != self.bits(self.run)
            self.judge(kind, argv, ended, "silent" if wrong else "refused whole" if same and ended.code else None)
        elif name in ("model.safetensors", "splits.csv", "config.yaml"):
            argv = ["evaluate", str(run), "--json"]
            ended = call(argv, self.folder)
            changed = ended.code == 0 and (not same if name == "splits.csv" else ended.out != self.score.out)
            silent = "silent" if changed and name != "config.yaml" else None
            self.judge(kind, argv, ended, "refused whole" if same and ended.code else silent)
        else:
            table = name == "summary.json" and self.chance.random() < 0.7
            argv = ["compare", "--table", str(place)] if table else ["report", str(run), "--out", str(place / "r.html")]
            ended = call(argv, self.folder)
            silent = False
            if ended.code == 0 and name.endswith(".json"):
                silent = json.loads(path.read_text()) != json.loads(whole)
            self.judge(kind, argv, ended, "silent" if silent else "refused whole" if same and ended.code else None)

    def damaged_data(self) -> None:
        """One damage to a data set, a grid or a model, and a dry run on it."""
        data, place = self.folder / "data", self.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(data, place)
        name, argv = self.chance.choice((
            ("toy.npz", ["train", "--data", str(place / "toy.npz"), *TRAIN, "--dry-run"]),
            ("list.csv", ["train", "--data", str(place / "list.csv"), "--data.image-size", "8", *TRAIN, "--dry-run"]),
            ("train-0000.tar", ["train", "--data", str(place / "train-{0000..0000}.tar"), "--data.image-size", "8",
                                *TRAIN, "--dry-run"]),
            ("boxes/train.json", ["detect", "train", "--data", str(place / "boxes"), "--weights", str(self.run),
                                  "--backbone", "wrn_10_1", "--method.iterations", "1", "--epochs", "1",
                                  "--batch-size", "2", "--dry-run", "--out", str(place / "boxes-run"), *CPU]),
            ("train0.png", ["predict", str(self.run), str(place / "train0.png")]),
            ("grid.yaml", ["compare", "--grid", str(place / "grid.yaml"), "--dry-run", "--out", str(place / "grid")]),
        ))  # fmt: skip
        path = place / name
        if name == "grid.yaml":
            path.write_text("data: digits\nbackbones: [wrn_10_1]\nmethods: {baseline: {}, mixup: {alpha: 0.2}}\n"
                            "seeds: [0, 1]\nsettings: {run: {epochs: 2}, optim: {lr: 0.1}}\n"
                            "transfer: {recipe: x}\n")  # fmt: skip
        whole = path.read_bytes()
        path.write_bytes(self.damaged(whole))
        ended = call(argv, self.folder)
        refused = path.read_bytes() == whole and ended.code and name != "grid.yaml"  # which has a mistake
        kind = f"damaged {name} for {argv[0]}"
        self.judge(kind, argv, ended, "refused whole" if refused else None)

    def wrong_arguments(self) -> None:
        """A few settings with values that do not fit them."""
        strange = ("", "-1", "0", "1e308", "nan", "inf", "9" * 5000, "9" * 20, "[]", "{}", "[1,2", "null", "true",
                   "\udcff", "\x1b[2J", "../..", "/", "/dev/null", ".", "timm/hf-hub:x/y", "x" * 10_000, "1:2:3",
                   "1_0", "\uff11", "0x10", "--", "~", "*", "{0..9999999}", "(a{999999999})", "\n", "a,a",
                   "a b")  # fmt: skip
        verb = self.chance.choice((
            ["train", "--data", str(self.folder / "data" / "toy.npz"), *TRAIN, "--epochs", "1", "--dry-run"],
            ["show-data", "--data", str(self.folder / "data" / "toy.npz")],
            ["evaluate", str(self.run)], ["predict", str(self.run), str(self.folder / "data" / "train0.png")],
            ["report", str(self.run)], ["export", str(self.run)], ["calibrate", str(self.run)],
            ["compare", "--table", str(self.folder / "runs")], ["list"], ["benchmark", "--dry"],
            ["push", str(self.run)],
        ))  # fmt: skip
        keys = sorted(known_keys())
        argv = list(verb)
        for _ in range(self.chance.choice((1, 1, 2))):
            flags = ["--batch-size", "--out", "--data", "--split", "--suite", "--format", "--backbone", "--method",
                     "--weights", "--json", "--top", "--epochs", "--seeds", "--config"]  # fmt: skip
            settings = [f"--{key.replace('_', '-')}" for key in keys]
            argv += [self.chance.choice(settings if verb[0] == "train" else flags), self.chance.choice(strange)]
        if self.chance.random() < 0.1:
            argv.insert(self.chance.randrange(len(argv)), self.chance.choice(strange))
        place = self.folder / "here"
        place.mkdir(exist_ok=True)
        with contextlib.chdir(place):
            self.judge(f"arguments of {verb[0]}", argv, call(argv, self.folder))
        shutil.rmtree(place)

    def signals(self) -> None:
        """One run with signals or kills at random moments, resumed until it ends."""
        out, stops = self.folder / "stopped", self.chance.randint(1, 3)
        shutil.rmtree(out, ignore_errors=True)
        for attempt in itertools.count():
            resume = ["--resume"] if (out / "config.yaml").exists() else []
            number = self.chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            stop = (self.chance.uniform(0, self.seconds), number) if attempt < stops else None
            argv = self.train(out, *resume)
            ended = call(argv, self.folder, stop=stop)
            # Before training begins, a signal ends the process in the usual way.
            wrong = ended.code not in (0, None, 70, -9, -15, 130, 143)
            self.judge(f"signal {number.name}" if stop else "resumed run", argv, ended, "other end" if wrong else None)
            if ended.code == 0:
                break
            if attempt > 8:
                return
        ended = Ended(0, "", "")
        self.judge("bits of a stopped run", argv, ended, None if self.bits(out) == self.bits(self.run) else "bits")

    def torchrun(self) -> None:
        """Two processes under torchrun's launcher, killed with SIGKILL or stopped with SIGTERM, and resumed."""
        out = self.folder / "two"
        shutil.rmtree(out, ignore_errors=True)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                    "mixskd"]  # fmt: skip
        for attempt in itertools.count():
            resume = ["--resume"] if (out / "config.yaml").exists() else []
            argv = self.train(out, *resume)
            process = subprocess.Popen([*launcher, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       start_new_session=True)  # fmt: skip
            kill = self.two is not None and attempt < 1
            try:
                outputs = process.communicate(timeout=self.chance.uniform(0, self.two_seconds) if kill else 3 * LIMIT)
                ended = Ended(process.returncode, *outputs)
            except subprocess.TimeoutExpired:
                number = self.chance.choice((signal.SIGKILL, signal.SIGTERM))
                for one in descendants(process.pid) if number == signal.SIGKILL else [process.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, number)
                try:
                    outputs = process.communicate(timeout=LIMIT)
                    ended = Ended(-number, *(("", "") if number == signal.SIGKILL else outputs))
                    if number == signal.SIGTERM:  # torchrun's own traceback for a signal is not ours
                        ended = Ended(-number, "", "")
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    ended = Ended(None, "", "")
            self.judge("torchrun killed" if kill else "torchrun", argv, ended, None)
            if ended.code == 0:
                break
            if attempt > 5:
                return
        if self.two is None:
            self.two = self.bits(out)
        else:
            self.judge("bits of torchrun", argv, Ended(0, "", ""), None if self.bits(out) == self.two else "bits")

    def carry_out(self, minutes: float, rounds: int | None, with_torchrun: bool) -> None:
        """Cases of all kinds in turn, until the time is over or each has had so many ``rounds``."""
        end = time.monotonic() + 60 * minutes
        self.two: dict[str, str] | None = None
        began = time.monotonic()
        self.reference()
        began = time.monotonic()
        shutil.rmtree(self.folder / "timed", ignore_errors=True)
        call(self.train(self.folder / "timed"), self.folder)
        self.seconds = time.monotonic() - began
        if with_torchrun:
            began = time.monotonic()
            self.torchrun()
            self.two_seconds = time.monotonic() - began
        for number in itertools.count():
            if number == rounds or time.monotonic() > end:
                break
            for _ in range(6):
                self.damaged_run()
            for _ in range(2):
                self.damaged_data()
            for _ in range(3):
                self.wrong_arguments()
            if number % 3 == 0:
                self.signals()
            if with_torchrun and number % 12 == 5:
                self.torchrun()

    def counts(self) -> dict[str, Any]:
        """The counts in all and by kind."""
        total = {fault: sum(faults[fault] for faults in self.faults.values()) for fault in FAULTS}
        others = {f for faults in self.faults.values() for f in faults} - set(FAULTS)
        total |= {fault: sum(faults[fault] for faults in self.faults.values()) for fault in sorted(others)}
        return {"cases": sum(self.cases.values()), **total, "exit codes by kind":
                    {kind: dict(codes) for kind, codes in sorted(self.codes.items())},
                "faults by kind": {kind: dict(faults) for kind, faults in self.faults.items()}}  # fmt: skip


def descendants(process: int) -> Iterator[int]:
    """``process`` and all that it started, by /proc."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from descendants(int(child))


def main() -> None:
    """Carry out the campaign and write counts.json and faults.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--rounds", type=int, help="of each kind; as many as fit into --minutes by default")
    parser.add_argument("--no-torchrun", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/border_campaign"))
    arguments = parser.parse_args()

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), arguments.seed)
        try:
            campaign.carry_out(arguments.minutes, arguments.rounds, not arguments.no_torchrun)
        finally:
            counts = {**campaign.counts(), "seed": arguments.seed, "minutes": round((time.monotonic() - began) / 60, 1)}
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"counts_seed{arguments.seed}.json").write_text(json.dumps(counts, indent=1) + "\n")
            text = "".join(json.dumps(entry).replace(folder, "FOLDER") + "\n" for entry in campaign.found)
            (arguments.out / f"faults_seed{arguments.seed}.jsonl").write_text(text)
    print(json.dumps(counts, indent=1))
    if any(counts[fault] for fault in FAULTS):
        raise SystemExit("something went wrong; see the faults beside the counts")


if __name__ == "__main__":
    main()
