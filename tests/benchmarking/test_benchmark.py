"""The report of a small benchmark, the parts of a step, and the arithmetic counted by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mixskd.benchmarking import benchmark as running
from mixskd.benchmarking import process, timing, variant_bench
from mixskd.benchmarking.table import show
from mixskd.benchmarking.variant_bench import Bench
from mixskd.benchmarking.variants import Variant, choose, variants_of
from mixskd.cli.main import main
from mixskd.config import Experiment
from mixskd.config.build import build_experiment
from mixskd.data.batch import DeferredBatch
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import device_name
from mixskd.training.engine import Engine
from tests.processes import FORKS

DEFAULT = Engine("bf16", channels_last=True, fused=True)


def small(method: str = "mixskd") -> Experiment:
    return build_experiment(
        {
            "backbone": "wrn_10_1", "method": {"name": method}, "data": {"source": "synthetic", "image_size": 16},
            "run": {"batch_size": 4, "device": "cpu"},
        }
    )  # fmt: skip


def bench(method: str) -> Bench:
    return Bench(small(method), Variant("", Engine(), keep_memory=False), World())


def test_benchmark_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(running, "startup_seconds", lambda: {"help": 0.1, "first_step": 4.0})
    monkeypatch.setattr(running, "WARM_UP", {"cpu": 1})
    monkeypatch.setattr(variant_bench, "SIDES", {"cpu": 64})
    monkeypatch.setitem(running.benchmark.__kwdefaults__, "loader_seconds", 0.1)
    monkeypatch.setattr(process, "multiprocessing", SimpleNamespace(get_context=lambda _kind: FORKS))
    out = tmp_path / "report.json"
    words = ["--data", "synthetic", "--backbone", "wrn_10_1", "--data.image-size", "16", "--batch-size", "4"]
    words += ["--variants", "plain,default", "--rounds", "1", "--out", str(out)]
    assert main(["benchmark", *words]) == 0
    assert "objective" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["machine"]["device"] == device_name(torch.device("cpu"))
    assert list(report["variants"]) == ["plain", "default"]
    for row in report["variants"].values():
        assert row["images_per_second"] == pytest.approx(4 / row["step_seconds"])
        assert row["peak_memory_bytes"] > 2**20
    assert report["variants"]["plain"]["speedup"] == 1
    assert report["variants"]["plain"]["engine"]["precision"] == "fp32"
    assert report["loader"]["times_the_default_step"] > 0
    assert 0 < report["objective_share"] < 1


class FailedRecording:
    """A process whose step could not be recorded."""

    def ask(self, name: str, *_: Any) -> Any:
        return {
            "executed": (DEFAULT, ["the step is not recorded: it waits"]), "data_seconds": 0.1, "steps": 0.1,
            "parts": {"objective forward": 1.0, "objective backward": 1.0, "step": 4.0},
        }.get(name, 1)  # fmt: skip


def test_step_that_fell_back_does_not_count_as_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "remotes", lambda *_: nullcontext(defaultdict(FailedRecording)))
    report = running.benchmark(small(), variants="default", rounds=1, round_seconds=0.0, startup=False)
    assert list(report["variants"]) == ["default_fallback"]
    assert report["notes"][-1] == "default_fallback: the step is not recorded: it waits"
    assert "times_the_default_step" not in report["loader"]


class Clock:
    """A clock that stands still but for what it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def spend(self, act: Any, forward: float, backward: float = 0.0) -> Any:
        """``act``, which then takes ``forward`` seconds, and the backward pass of its result ``backward``."""
        clock = self

        class Spend(torch.autograd.Function):
            @staticmethod
            def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
                return x.clone()

            @staticmethod
            def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
                clock.now += backward
                return gradient

        def spending(*args: Any, **kwargs: Any) -> Any:
            result = act(*args, **kwargs)
            clock.now += forward
            return Spend.apply(result) if backward else result

        return spending


def test_report_is_complete_after_each_round_but_for_what_is_timed_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WARM_UP", {"cpu": 1})
    monkeypatch.setattr(variant_bench, "SIDES", {"cpu": 64})
    monkeypatch.setattr(process, "multiprocessing", SimpleNamespace(get_context=lambda _kind: FORKS))
    options = {"variants": "plain", "round_seconds": 0.0, "loader_seconds": 0.0, "startup": False}
    rounds: list[dict[str, Any]] = []
    report = running.benchmark(small("baseline"), rounds=2, **options, after_round=rounds.append)
    last = {"parts_of_the_eager_step", "objective_share", "loader"}
    assert [one["rounds"] for one in rounds] == [1, 2]
    assert [len(one["variants"]["plain"]["step_seconds_of_rounds"]) for one in rounds] == [1, 2]
    assert {key for one in rounds for key in one} == report.keys() - last
    assert "startup_seconds" not in report
    show(report)


@pytest.mark.parametrize(("method", "within", "heads"), [("baseline", 1, 0), ("mixskd", 0, 2)])
def test_each_second_counts_for_the_right_part(
    method: str, within: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that runs only in known places. The head is called within the network, or for originals and mixes."""
    one, clock = bench(method), Clock()
    one.steps(1)
    monkeypatch.setattr(timing, "time", clock)
    net = one.step.method
    one.step.method.draw = clock.spend(net.draw, 1)  # type: ignore[method-assign]
    for stage in net.backbone.stages:
        stage.forward = clock.spend(stage.forward, 3, 17)  # type: ignore[method-assign]
    net.backbone.head.forward = clock.spend(net.backbone.head.forward, 7, 13)  # type: ignore[method-assign]
    monkeypatch.setattr(one.step.optimizer, "zero_grad", clock.spend(one.step.optimizer.zero_grad, 11))
    stages = len(net.backbone.stages)
    assert one.parts(1) == {
        "draws": 1, "network forward": 3 * stages + 7 * within, "objective forward": 7 * heads,
        "objective backward": 13 * heads, "network backward": 17 * stages + 13 * within, "optimizer": 11,
        "step": 12 + 20 * (stages + heads + within),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["baseline", "mixskd", "manifold_mixup", "cskd"])
def test_every_part_takes_time_and_leaves_no_hooks(method: str) -> None:
    one = bench(method)
    one.steps(1)
    parts = one.parts(1)
    step = parts.pop("step")
    for name in ("network forward", "network backward", "objective forward", "objective backward", "optimizer"):
        assert 0 < parts[name] < step, name
    assert not any(module._forward_hooks for module in one.step.method.modules()), "the hooks are gone"


def test_flops_are_those_of_the_network() -> None:
    """A baseline: forward and both gradients of each convolution and of the head, less the images' gradient."""
    one = bench("baseline")
    backbone, batch, expected = one.step.method.backbone, 4, 0
    handles = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal expected
        weights = module.weight.numel() // module.weight.shape[0]  # type: ignore[union-attr,operator]
        passes = 2 if inputs[0].shape[1] == 3 else 3
        expected += passes * 2 * output.numel() * weights

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            handles.append(module.register_forward_hook(count))
    backbone(torch.randn(batch, 3, 16, 16))
    for handle in handles:
        handle.remove()
    assert one.flops() == expected


@pytest.mark.parametrize("method", ["mixskd", "ddgsd", "bake"])
@pytest.mark.parametrize("deferred", [False, True])
def test_contiguous_variants_get_contiguous_images(method: str, deferred: bool) -> None:
    """Views and partners too, and if the step itself makes the batch."""
    one = bench(method)
    one.loader.deferred = deferred
    batch = next(one._endless())
    assert isinstance(batch, DeferredBatch) == deferred
    made = batch.make(batch.indices, batch.source, batch.size) if deferred else batch
    assert made.images.shape == (4, 3, 16, 16)
    for x in (made.images, *made.extra.values()):
        assert x.is_contiguous()


def test_variants_leave_out_one_optimisation_each() -> None:
    known = variants_of(DEFAULT, "cpu")
    assert known["plain"].engine == Engine()
    assert known["default"].engine == DEFAULT
    assert known["without_low_precision"].engine == Engine("fp32", channels_last=True, fused=True)
    assert not known["without_kept_memory"].keep_memory
    assert "with_compile" not in choose(known, None)
    cuda = variants_of(Engine("bf16", channels_last=True, fused=True, compile=True, cuda_graphs=True), "cuda")
    assert {"without_compile", "without_graphs", "eager"} <= set(cuda)
    assert list(choose(known, "default, plain")) == ["default", "plain"]
    with pytest.raises(UserError, match="did you mean 'plain'"):
        choose(known, "plane")
