"""The measured precision: what is timed, kept in the cache, chosen and stored; with stubs of clock and processor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mixskd
from mixskd.config import RunConfig
from mixskd.config.build import build_experiment
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.tasks.setup import Sample
from mixskd.training import measured_precision, measurements
from mixskd.training.checkpoint import load_checkpoint, save_checkpoint
from mixskd.training.engine import Engine, choose_engine
from mixskd.training.factory import engine_of
from mixskd.training.measured_precision import (
    images_per_second,
    is_measured,
    to_store,
    with_faster_precision,
    with_stored_precision,
)
from mixskd.training.measurements import cache_file, race, remembered
from tests.conftest import make_toy
from tests.interruption import StopsAt

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXSKD_MEASURED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bf16."""
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"cpu_name": "X", "amx_bf16": True})


class Rates:
    """A stub of the measurement of a network, which records the shapes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> None:
        self.rates, self.shapes = {"fp32": fp32, "bf16": bf16}, []
        monkeypatch.setattr(measured_precision, "images_per_second", self)

    def __call__(self, sample: Sample, seconds: float) -> dict[str, float]:
        self.shapes.append(sample.shape)
        return self.rates


def test_race_alternates_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(measurements, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    costs = {"a": iter([9.0, 1.0, 3.0, 3.0, 3.0]), "b": iter([9.0, 4.0, 2.0, 4.0, 4.0])}

    def act(name: str) -> None:
        called.append(name)
        clock.now += next(costs[name])

    assert race({"a": lambda: act("a"), "b": lambda: act("b")}, 36) == {"a": 1, "b": 2}
    assert called == ["a", "b"] * 4
    assert clock.now == 35, "one more would end at 42"


@pytest.mark.parametrize(
    ("cost", "found"), [(0.001, True), (0.02, True), (0.1, True), (0.2, True), (0.3, True), (0.5, True), (0.9, False)]
)
def test_measurement_takes_under_two_seconds(cost: float, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes ``cost`` seconds of the stubbed clock, and a step too."""
    clock = SimpleNamespace(now=0.0)
    for module in (measurements, measured_precision):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def call(_act: Any) -> float:
        clock.now += cost
        return cost

    monkeypatch.setattr(measurements, "seconds_of", call)
    monkeypatch.setattr(measured_precision, "seconds_of", call)
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"cpu_name": "X", "amx_bf16": True})
    engine = choose(RunConfig())
    assert 0 < clock.now < 2
    assert engine.precision == "bf16"
    assert ("images/s, with fp32" in engine.reason) == found
    assert found or engine.reason.endswith("not measured, because a step is too slow for that")
    clock.now = 0.0
    choose(RunConfig())  # measures what the first one had no time for
    assert clock.now == 0 if found else clock.now < 2


def test_measurement_is_kept_for_the_same_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXSKD_MEASURED", str(tmp_path / "elsewhere.json"))
    assert remembered("what", lambda: {"x": 2.0}) == remembered("what", lambda: {"x": 3.0}) == {"x": 2.0}
    assert cache_file() == tmp_path / "elsewhere.json"
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in cache_file().read_text()
    assert remembered("other", lambda: {"x": 3.0}) == {"x": 3.0}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert remembered("what", lambda: {"x": 4.0}) == {"x": 4.0}


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"KEY": {"x": "1"}}', '{"KEY": {}}', '{"KEY": [1]}'])
def test_damaged_cache_is_replaced(content: str) -> None:
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content.replace("KEY", f"what; {measurements.processor()}"))
    assert remembered("what", lambda: {"x": 2.0}) == {"x": 2.0}
    assert remembered("what", lambda: {"x": 3.0}) == {"x": 2.0}


@pytest.mark.usefixtures("bf16")
def test_nothing_is_measured_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    rates = Rates(monkeypatch, 2, 1)
    engine = choose(RunConfig())
    assert engine == Engine("bf16", channels_last=True, fused=True)
    assert engine.reason == "which this CPU multiplies in hardware; not measured, because the cache cannot be written"
    assert rates.shapes == []


def sample(network: torch.nn.Module) -> Sample:
    return Sample("toy", network, lambda net, x: [net(x)], (4, 3, 8, 8))


def choose(run: RunConfig, world: World | None = None) -> Engine:
    engine, _ = choose_engine(run, CPU, World())
    return with_faster_precision(engine, run, CPU, world or World(), sample(make_toy().float()))


@pytest.mark.usefixtures("bf16")
def test_auto_uses_the_faster_precision_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 14.94, 12.6)
    for _start in range(2):
        engine = choose(RunConfig())
        assert engine == Engine("fp32", channels_last=True, fused=True)
        assert engine.reason == "measured here: 14.9 images/s, with bf16 12.6"
    assert rates.shapes == [(4, 3, 8, 8)]
    cache_file().unlink()
    Rates(monkeypatch, 14.9, 34.7)
    assert choose(RunConfig()) == Engine("bf16", channels_last=True, fused=True)


@pytest.mark.usefixtures("bf16")
def test_precision_of_the_user_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 2, 1)
    assert choose(RunConfig(precision="bf16")) == Engine("bf16", channels_last=True, fused=True)
    assert choose(RunConfig(precision="fp32")) == Engine("fp32", channels_last=True, fused=True)
    off = choose(RunConfig(measure=False))
    assert off == Engine("bf16", channels_last=True, fused=True)
    assert off.reason == "which this CPU multiplies in hardware"
    assert is_measured(off, RunConfig(), CPU)
    assert not is_measured(off, RunConfig(), torch.device("cuda"))
    assert rates.shapes == []


def test_cpu_without_bf16_uses_fp32_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"avx2": True})
    rates = Rates(monkeypatch, 1, 2)
    engine = choose(RunConfig())
    assert engine == Engine("fp32", channels_last=True, fused=True)
    assert engine.reason == "because this CPU does not multiply bf16 in hardware"
    assert choose(RunConfig(precision="bf16")).reason == "as set"
    assert rates.shapes == []


@pytest.mark.usefixtures("bf16")
def test_first_process_decides_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    rates = Rates(monkeypatch, 2, 1)
    monkeypatch.setattr(World, "same", lambda self, value: said.append(value) or said[0])
    first = choose(RunConfig(), World(0, 2))
    rates.rates = {"fp32": 1, "bf16": 2}
    cache_file().unlink()
    second = choose(RunConfig(), World(1, 2))
    assert (first, first.reason) == (second, second.reason)
    assert first.precision == "fp32"
    assert len(rates.shapes) == 1, "the second process does not measure"


def test_measurement_changes_neither_network_nor_random_numbers() -> None:
    net = make_toy().float()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    rates = images_per_second(sample(net), seconds=10)
    assert torch.equal(torch.randn(4), expected)
    assert rates.keys() == {"fp32", "bf16"}
    assert min(rates.values()) > 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.usefixtures("bf16")
def test_network_that_cannot_be_measured_is_trained_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no heads\nmore")

    monkeypatch.setattr(measured_precision, "images_per_second", fails)
    engine = choose(RunConfig())
    assert engine.precision == "bf16"
    assert engine.reason == "which this CPU multiplies in hardware; it cannot be measured: no heads"


def test_stored_precision_is_used_and_other_choices_of_earlier_versions_are_ignored() -> None:
    kept = to_store(Engine("fp32", compile=True, reason="because"))
    restored = with_stored_precision(Engine("bf16", channels_last=True), kept)
    assert (restored, restored.reason) == (Engine("fp32", channels_last=True), "because")
    for earlier in ({"products": [[64, 128, 256, 64]] * 3}, {"products": None}, {"small_maps": [16, 256, 128]}):
        assert with_stored_precision(Engine("bf16"), kept | earlier) == Engine("fp32")


SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "mixskd", "data": {"source": "npz", "image_size": 8},
    "run": {"epochs": 2, "batch_size": 6, "progress": False, "device": "cpu"},
}  # fmt: skip


@pytest.mark.usefixtures("bf16")
def test_resumed_run_keeps_its_precision(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Description(mixskd.Listener):
        def start(self, info: Any) -> None:
            self.lines = info.description

    rates = Rates(monkeypatch, 3, 1)
    words = {**SETTINGS, "data": {"source": str(npz), "image_size": 8}}
    words["run"] = {**words["run"], "checkpoint_every_steps": 1}
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(out=str(out), listeners=[StopsAt(2)], **words)
    assert rates.shapes == [(12, 3, 8, 8)], "originals and mixes"
    rates.rates = {"fp32": 1, "bf16": 3}
    cache_file().unlink()
    description = Description()
    summary = mixskd.train(out=str(out), resume=True, listeners=[description], **words)
    assert len(rates.shapes) == 1
    assert summary["precision"] == "fp32"
    assert summary["precision_reason"] == "measured here: 3.0 images/s, with bf16 1.0"
    assert "precision: fp32, measured here: 3.0 images/s, with bf16 1.0" in description.lines


def test_damaged_precision_of_a_checkpoint_is_one_line(tmp_path: Path, npz: Path) -> None:
    words = {**SETTINGS, "data": {"source": str(npz), "image_size": 8}, "method": "baseline"}
    out = tmp_path / "run"
    mixskd.train(out=str(out), **words)
    state = load_checkpoint(out / "checkpoint.pt")
    assert state["arithmetic"]["precision"] in ("fp32", "bf16")
    save_checkpoint(out / "checkpoint.pt", {**state, "arithmetic": {**state["arithmetic"], "precision": "int3"}})
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged: arithmetic\.precision: "):
        mixskd.train(out=str(out), resume=True, **words)


@pytest.mark.usefixtures("bf16")
def test_benchmark_uses_the_engine_of_a_run(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 3, 1)
    engine, _ = engine_of(build_experiment({**SETTINGS, "data": {"source": str(npz), "image_size": 8}}))
    assert (engine.precision, rates.shapes) == ("fp32", [(12, 3, 8, 8)])
