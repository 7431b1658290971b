"""Kill runs with SIGKILL while they work, go on until they end, and compare the bits with runs that were left alone.

``python benchmarks/kill_campaign.py --kills 100 --out results/kill_campaign``. The kills are shared out over ``train``,
``compare`` and ``train`` in two processes under ``torchrun``. A kill comes up to 0.3 s after a drawn number of writes
of checkpoints, or up to 3 s after the start, so that a busy machine does not move all kills to the start. The log has
one line a kill and one a comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = [
    "--data", "digits", "--data.per-class", "20", "--batch-size", "20", "--run.progress", "false",
    "--run.checkpoint-every-steps", "2", "--run.device", "cpu", "--run.precision", "fp32",
]  # fmt: skip
TRAIN = [*SETTINGS, "--backbone", "wrn_10_1", "--method", "mixskd", "--epochs", "3"]
COMPARE = [*SETTINGS, "--backbones", "wrn_10_1", "--methods", "baseline,mixup", "--seeds", "0", "--epochs", "2"]
EQUAL = ("metrics.csv", "model.safetensors")


def command(kind: str, out: Path, again: bool) -> list[str]:
    """The command of ``kind`` in ``out``, the first time or ``again``."""
    if kind == "compare":
        return [sys.executable, "-m", "mixskd", "compare", *COMPARE, "--jobs", "1", "--out", str(out)]
    train = ["-m", "mixskd", "train", *TRAIN, "--out", str(out), *(["--resume"] if again else [])]
    if kind == "train":
        return [sys.executable, *train]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *train]


def start(kind: str, out: Path) -> subprocess.Popen[str]:
    """Start it in a session of its own, so that all of its processes can be killed at once."""
    again = (out / "checkpoint.pt").exists()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(kind, out, again), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


def descendants(process: int) -> list[int]:
    """``process`` and all that it started, by /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [process]
    for parent in found:
        found += parents.get(parent, [])
    return found


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to all processes of the run."""
    for one in descendants(process.pid):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def digests(out: Path) -> dict[str, str]:
    """What equal runs have equal, by path."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.name in EQUAL
    }


class Log:
    """One JSON line an event, written at once, so that nothing is lost if the campaign itself is stopped."""

    def __init__(self, path: Path) -> None:
        self.path, self.entries = path, []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def add(self, **entry: Any) -> None:
        """Keep ``entry`` and write it."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def having(self, key: str) -> list[dict[str, Any]]:
        """The entries with ``key``."""
        return [entry for entry in self.entries if key in entry]


def written(out: Path) -> int:
    """The inodes of checkpoints and summaries; each is another one after a write."""
    found = 0
    for path in out.rglob("*"):
        if path.name in ("checkpoint.pt", "summary.json"):
            with contextlib.suppress(OSError):
                found += path.stat().st_ino
    return found


def wait(process: subprocess.Popen[str], out: Path, writes: int | None, delay: float) -> tuple[int, bool]:
    """Wait for the end, or for ``delay`` seconds after so many writes of a run; how many were seen, and if it ended."""
    seen, before, moment = 0, written(out), None
    while process.poll() is None:
        if (now := written(out)) != before:
            seen, before = seen + 1, now
        if writes is not None and seen >= writes and moment is None:
            moment = time.monotonic() + delay
        if moment is not None and time.monotonic() >= moment:
            return seen, False
        time.sleep(0.01)
    return seen, True


def killed_run(kind: str, out: Path, kills: int, whole: int, chance: random.Random, log: Log) -> int:
    """Run ``kind`` to its end, with so many kills, each shortly after one of the ``whole`` writes of a run.

    An end that nobody asked for with another exit code than 0 is written down and the command is given again. Returns
    how many writes the last start saw.
    """
    done = 0
    for _ in range(3 * kills + 4):
        process = start(kind, out)
        writes = chance.randrange(max(whole // 2, 1)) if done < kills else None
        seen, ended = wait(process, out, writes, chance.uniform(0, 3 if writes == 0 else 0.3))
        if not ended:
            had = any(out.rglob("checkpoint.pt"))
            kill(process)
            done += 1
            log.add(kind=kind, kill=done, after_writes=seen, checkpoint=had)
            continue
        errors = process.communicate()[1]
        if process.returncode == 0:
            return seen
        log.add(kind=kind, ended=process.returncode, says=errors.strip().splitlines()[-12:])
    raise SystemExit(f"{kind} does not end with exit code 0; see {log.path}")


def main() -> None:
    """Carry out the campaign and write its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all, over the kinds")
    parser.add_argument("--each", type=int, default=4, help="kills a run")
    parser.add_argument("--kinds", default="train,compare,torchrun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/kill_campaign"))
    arguments = parser.parse_args()
    chance, kinds, log = random.Random(arguments.seed), arguments.kinds.split(","), Log(arguments.out / "log.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        whole, writes = {}, {}
        for kind in kinds:
            writes[kind] = killed_run(kind, Path(folder) / f"{kind}-whole", 0, 0, chance, log)
            whole[kind] = digests(Path(folder) / f"{kind}-whole")
            print(kind, "writes", writes[kind], "times", flush=True)
        number = left = 0
        while (left := arguments.kills - len(log.having("kill"))) > 0:
            kind, number = kinds[number % len(kinds)], number + 1
            out, before = Path(folder) / f"{kind}-{number}", len(log.having("kill"))
            killed_run(kind, out, min(arguments.each, left), writes[kind], chance, log)
            found = digests(out)
            log.add(kind=kind, run=number, kills=len(log.having("kill")) - before, same_bits=found == whole[kind])
            print(log.entries[-1], flush=True)
    compared = log.having("run")
    summary = {
        "kills": len(log.having("kill")),
        "kills of a run with a checkpoint": sum(entry["checkpoint"] for entry in log.having("kill")),
        "runs": len(compared),
        "runs with the same bits": sum(entry["same_bits"] for entry in compared),
        "other ends": len(log.having("ended")),
        "kills by kind": {kind: sum(entry["kind"] == kind for entry in log.having("kill")) for kind in kinds},
    }
    (arguments.out / "kills.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(summary)
    if summary["runs with the same bits"] != summary["runs"] or summary["other ends"]:
        raise SystemExit("a run came out to other bits, or ended as nobody asked for")


if __name__ == "__main__":
    main()
