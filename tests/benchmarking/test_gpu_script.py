"""The script for a machine with a GPU, run with a Python that only writes down what it is asked for."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mixskd.benchmarking.variants import choose, variants_of
from mixskd.cli.main import main
from mixskd.config import DataConfig
from mixskd.data import load_data
from mixskd.training import run
from mixskd.training.engine import Engine

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
TEXT = SCRIPT.read_text()
ENGINES = {
    "gpu": Engine("bf16", channels_last=True, fused=True, compile=True, cuda_graphs=True),
    "eager": Engine("bf16", channels_last=True, fused=True, cuda_graphs=True),
    "cpu": Engine(channels_last=True, fused=True),
}
EXPECTED = {"torch", "torchvision", "numpy", "jinja2"}  # on the machine; the last is a dependency of torch
UNUSED = {"matplotlib"}  # by any stage
BENCHMARKS = ["speed_mixskd", "speed_mixskd_with", "speed_mixskd_without", "speed_baseline", "speed_wrn", "loader"]
STAGES = ["speed", "checks", "variants", "released", "loader", "train", "tests"]
RUNS, TESTS = 12, 4

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("timeout") and shutil.which("realpath")),
    reason="needs bash and the GNU core utilities",
)

# -m and files are written down; "-" alone is the question for the kind of machine; the rest is for a true Python.
PYTHON = """#!/bin/sh
case "$1 $#" in
  "- 1") cat > /dev/null; echo "$MACHINE" ;;
  "- "*) exec "$TRUE_PYTHON" "$@" ;;
  "-c "*) ;;
  *) for word in "$@"; do printf '%s\\t' "$word"; done >> "$ASKED"; echo >> "$ASKED"; [ "$FAILS" != 1 ] ;;
esac
"""


def run_script(
    folder: Path, machine: str, stages: list[str], fails: bool = False, **variables: str
) -> tuple[list[list[str]], str]:
    """What the script asks of Python, and what it says."""
    binaries, images = folder / "bin", folder / "flowers" / "rose"
    binaries.mkdir()
    images.mkdir(parents=True)
    python, asked, array = binaries / "python3", folder / "asked", folder / "cifar100.npz"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for file in (asked, array):
        file.touch()
    given = {"CIFAR100": array, "OUT": folder / "out", "STATE": folder / "state", "FLOWERS17": images.parent}
    ours = {"ASKED": asked, "MACHINE": machine, "TRUE_PYTHON": sys.executable, "FAILS": int(fails), "RELEASED": folder}
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **{k: str(v) for k, v in (given | ours).items()}, "PATH": path, **variables}
    done = subprocess.run(["bash", SCRIPT, *stages], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [line.split("\t")[:-1] for line in asked.read_text().splitlines()], done.stdout


def results(folder: Path) -> set[str]:
    """The files of the one archive in OUT."""
    assert [path.name for path in (folder / "out").iterdir()] == ["results.tar.gz"]
    with tarfile.open(folder / "out" / "results.tar.gz") as archive:
        return {Path(member.name).name for member in archive if member.isfile()}


def test_gpu_script_has_valid_syntax() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], capture_output=True, check=False).returncode == 0


class ReachedError(BaseException):
    """Raised instead of a measurement or a training, with what it was asked for."""

    def __init__(self, experiment: Any, options: dict[str, Any]) -> None:
        self.experiment, self.options = experiment, options


@pytest.mark.parametrize("machine", ENGINES)
def test_gpu_script_uses_valid_commands(machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reach(experiment: Any, **options: Any) -> None:
        raise ReachedError(experiment, options)

    monkeypatch.setattr("mixskd.benchmarking.benchmark.benchmark", reach)
    monkeypatch.setattr("mixskd.training.run.train", reach)
    asked, _ = run_script(tmp_path, machine, ["speed", "variants", "loader", "train"])
    timed = [words for words in asked if words[0] == "benchmarks/timed_train.py"]
    assert len(timed) == RUNS
    assert [Path(words[1]).name for words in timed][:2] == ["seconds_mixskd-seed0.json", "seconds_baseline-seed0.json"]
    asked = [["-m", "mixskd", "train", *words[2:]] if words in timed else words for words in asked]
    known, compared = variants_of(ENGINES[machine], "cpu" if machine == "cpu" else "cuda"), set()
    for program, module, *words in asked:
        assert (program, module) == ("-m", "mixskd")
        with pytest.raises(ReachedError) as reached:
            main(words)
        if words[0] == "benchmark":
            compared |= set(choose(known, reached.value.options["variants"]))
    benchmarks = [words for words in asked if words[2] == "benchmark"]
    assert [Path(words[-1]).stem for words in benchmarks] == BENCHMARKS
    assert len(asked) - len(benchmarks) == RUNS
    if machine != "cpu":
        missing = set(known) - compared
        assert missing == {"without_low_precision", "without_channels_last", "with_checkpointing"} | (
            {"eager"} & missing
        )


def test_failed_measurement_does_not_stop_others(tmp_path: Path) -> None:
    asked, said = run_script(tmp_path, "eager", STAGES, fails=True)
    assert sum(words[1] == "pytest" for words in asked) == TESTS
    assert [Path(words[-1]).stem for words in asked if words[2] == "benchmark"] == BENCHMARKS
    assert said.count("exit code 1") == len(asked) == TESTS + len(BENCHMARKS) + 1 + RUNS
    assert {f"{name}.log" for name in (*BENCHMARKS, "checks", "released", "train_mixskd-seed0")} <= results(tmp_path)


def test_compiling_stages_need_enough_time(tmp_path: Path) -> None:
    asked, said = run_script(tmp_path, "gpu", STAGES, LIMIT="50")
    assert asked == []
    assert said.count("next time") == TESTS + len(BENCHMARKS) + 1 + RUNS


def test_most_valuable_stages_come_first_and_finished_ones_are_not_repeated(tmp_path: Path) -> None:
    asked, _ = run_script(tmp_path, "gpu", [])
    first, second, third = ([Path(word).name for word in words] for words in asked[:3])
    assert (first[first.index("--variants") + 1], first[-1]) == ("plain,default", "speed_mixskd.json")
    assert (second[1], second[-1]) == ("pytest", "(mixskd or pskd) and bf16 and (agrees or graphs)")
    assert third[-1] == "speed_mixskd_with.json"
    marks = {path.name for path in (tmp_path / "state" / "done").iterdir()}
    assert {"speed_mixskd", "checks", "released", "loader", "train_mixskd-seed0", "tests"} <= marks
    assert len(marks) == len(asked) == TESTS + len(BENCHMARKS) + 1 + RUNS
    again = tmp_path / "again"
    again.mkdir()
    assert run_script(again, "gpu", [], STATE=str(tmp_path / "state"))[0] == []


def test_synthetic_stages_need_no_data_and_leave_one_archive(tmp_path: Path) -> None:
    asked, said = run_script(tmp_path, "gpu", ["speed", "train"], CIFAR100="")
    assert [words[2] for words in asked] == ["benchmark"]
    assert "train: CIFAR100 is no file" in said
    assert {"speed_mixskd.log", "machine.txt"} <= results(tmp_path)


def test_parts_of_the_data_are_joined(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"c.npz.part{number}").write_text(str(number))
    asked, _ = run_script(tmp_path, "gpu", ["train"], CIFAR100=str(tmp_path / "c.npz"))
    joined = asked[0][asked[0].index("--data") + 1]
    assert Path(joined).read_text() == "12"


def test_trial_needs_no_data_and_trains_one_seed(tmp_path: Path) -> None:
    asked, _ = run_script(tmp_path, "cpu", ["speed", "train"], CIFAR100="", TINY="1")
    measured, *trained = asked
    assert measured[measured.index("--variants") + 1] == "default"
    assert [Path(words[1]).stem for words in trained] == [
        f"seconds_{name}-seed0" for name in ("mixskd", "baseline", "mixskd_released", "mixup", "mixskd_cutmix")
    ]
    data = load_data(DataConfig(source=trained[0][trained[0].index("--data") + 1]))
    assert (len(data.train), len(data.classes), set(data.splits)) == (200, 100, {"train", "test"})


def test_epoch_seconds_are_projected(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = tmp_path / "seconds.json"
    words = ["--data", str(npz), "--backbone", "wrn_10_1", "--method", "baseline", "--epochs", "3", "--batch-size", "4"]
    script = str(ROOT / "benchmarks" / "timed_train.py")
    monkeypatch.setattr(sys, "argv", [script, str(seconds), *words, "--out", str(tmp_path / "run")])
    monkeypatch.setattr(run, "train", run.train)  # which the script replaces
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert not ended.value.code
    figures = json.loads(seconds.read_text())
    first, *others = figures["seconds_of_epochs"]
    assert len(others) == 2
    assert figures["projected_minutes_of_all_epochs"] == pytest.approx((first + sum(others)) / 60)


def test_run_is_stopped_by_one_signal() -> None:
    """Without the option, timeout sends the signal to its child and then to the whole group."""
    assert re.findall(r"^ *timeout (\S+)", TEXT, re.MULTILINE) == ["--foreground"]


def requirements(name: str) -> set[str]:
    """The packages of a line ``NAME="module=package ..."``."""
    lines = re.findall(rf'^{name}="(.*)"$', TEXT, re.MULTILINE)
    return {word.partition("=")[2] for line in lines for word in line.split() if "=" in word}


def modules() -> set[str]:
    """What the script sees to that Python can import."""
    lines = re.findall(r'^(?:NEEDED|FOR_TESTS)="(.*)"$', TEXT, re.MULTILINE)
    return {word.partition("=")[0] for line in lines for word in line.split() if "=" in word}


def test_gpu_script_lists_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=!~ ]", line)[0] for line in project["dependencies"]}
    assert requirements("NEEDED") == needed - EXPECTED - UNUSED
    header = TEXT[: TEXT.index("\nset -u")]
    wheels = set(header[header.index("pip download") : header.index("# FLOWERS17")].split())
    assert requirements("NEEDED") | requirements("FOR_TESTS") <= wheels


def imported(path: Path) -> set[str]:
    """The modules outside of the standard library that ``path`` imports at its top, and our tests' that it imports."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            ours = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            found |= imported(ours) if name.startswith("tests.") and ours.exists() else {name.partition(".")[0]}
    return found - sys.stdlib_module_names - {"tests", "mixskd"}


def test_gpu_tests_need_no_other_packages(tmp_path: Path) -> None:
    asked, _ = run_script(tmp_path, "gpu", ["checks", "tests"])
    files = {word for words in asked for word in words if word.endswith(".py")}
    marked = {p for p in (ROOT / "tests").rglob("*.py") if re.search(r"^\s*@pytest\.mark\.gpu", p.read_text(), re.M)}
    assert {ROOT / file for file in files} == marked
    assert not [word for words in asked for word in words if word == "tests"], "all files would be collected"
    for path in (*marked, ROOT / "tests" / "conftest.py"):
        assert imported(path) <= EXPECTED | modules() | {"PIL"}, path
