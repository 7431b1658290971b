"""What is measured on a processor, kept, and chosen by it: on stubs of the clock and of the hardware."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from mixskd.training import convolution_limits, measurements
from mixskd.training import measured_precision as arithmetic
from mixskd.training.checkpoint import load_checkpoint, save_checkpoint
from mixskd.training.convolution import USUAL, Limits, SmallMaps, image_gradient, output, weight_gradient
from mixskd.training.convolution_limits import Shape, limits_here, measure_limits
from mixskd.training.engine import Engine, choose_engine
from mixskd.training.factory import engine_of
from mixskd.training.measured_precision import images_per_second, measured, pays, stored, to_store
from mixskd.training.measurements import cache_file, race, remembered
from tests.conftest import make_toy

CPU = torch.device("cpu")
MEASURED = SmallMaps(Limits(64, 128, 256, 64), Limits(16, 256), Limits(64, 64, 64, 128))
NOWHERE, BF16 = SmallMaps(), USUAL["bf16"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXSKD_MEASURED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bf16, whose products in place of convolutions were measured."""
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"cpu_name": "X", "amx_bf16": True})
    monkeypatch.setattr(arithmetic, "limits_here", lambda precision, seconds: MEASURED)


class Rates:
    """A stub of the measurement of a network, which notes the shapes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> None:
        self.rates, self.shapes, self.products = {"fp32": fp32, "bf16": bf16}, [], MEASURED
        monkeypatch.setattr(arithmetic, "images_per_second", self)

    def __call__(
        self, engine: Engine, network: Any, outputs: Any, shape: tuple[int, ...], seconds: float
    ) -> dict[str, float]:
        assert engine.small_maps == self.products, "bf16 is measured with the products that it would have"
        self.shapes.append(shape)
        return self.rates


Asked = tuple[str, int, int, int]


def by_gains(gains: dict[Asked, float], asked: list[Asked]) -> Callable[..., float]:
    def gain(part: str, shape: Shape, _seconds: float) -> float:
        asked.append((part, shape.channels, shape.side, shape.stride))
        return gains.get(asked[-1], 0.5)

    return gain


@pytest.mark.parametrize("part", ["output", "to_images", "to_weight"])
@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({}, Limits()),
        ({(256, 4, 1): 1.1}, Limits(16, 256)),
        ({(256, 4, 1): 1.1, (128, 4, 1): 1.6, (256, 8, 2): 1.4}, Limits(16, 128)),
        ({(256, 4, 1): 1.1, (128, 4, 1): 1.4}, Limits(16, 256)),
        (
            {(256, 4, 1): 4, (256, 8, 1): 1.04, (256, 8, 2): 1.8, (128, 8, 2): 1.8, (128, 16, 2): 1.4},
            Limits(16, 256, 64, 128),
        ),
        (
            {(256, 4, 1): 4, (256, 8, 1): 2, (128, 8, 1): 2, (256, 8, 2): 3, (256, 16, 2): 1.6},
            Limits(64, 128, 256, 256),
        ),
        ({(256, 8, 2): 3, (128, 8, 2): 3, (128, 16, 2): 3}, Limits(0, 0, 256, 128)),
    ],
)
def test_limits_by_the_gains_of_few_shapes(gains: dict[Any, float], expected: Limits, part: str) -> None:
    asked: list[Asked] = []
    gain = by_gains({(part, *shape): found for shape, found in gains.items()}, asked)
    assert measure_limits(gain, 9, BF16) == SmallMaps(**{part: expected})
    assert len(asked) == len(set(asked)) <= 6 + 2 + 2


def test_a_slow_processor_keeps_the_usual_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(convolution_limits, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    asked: list[Asked] = []
    found = measure_limits(by_gains({("to_weight", 256, 4, 1): 0.5}, asked), 2.5, MEASURED)
    assert len(asked) == 1
    usual = MEASURED.to_weight
    limits = Limits(0, 0, usual.strided_map, usual.strided_channels)
    assert found == SmallMaps(MEASURED.output, MEASURED.to_images, limits), "one shape in the time; the others as usual"


@pytest.mark.parametrize(
    ("part", "product"), [("output", output), ("to_images", image_gradient), ("to_weight", weight_gradient)]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_ways_compute_the_same(part: str, product: Any, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, torch.Tensor] = {}
    called: list[Any] = []
    monkeypatch.setattr(convolution_limits, product.__name__, lambda *args: called.append(args) or product(*args))

    def one_call_each(acts: dict[str, Callable[[], torch.Tensor]], _seconds: float) -> dict[str, float]:
        found.update({name: act() for name, act in acts.items()})
        return {"library": 3.0, "product": 2.0}

    monkeypatch.setattr(convolution_limits, "race", one_call_each)
    assert convolution_limits.gain_of(precision, part, Shape(2, 4, 8, 4, 2), 0.1) == 1.5
    assert len(called) == 1
    assert (
        found["library"].dtype == found["product"].dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    )
    torch.testing.assert_close(found["library"], found["product"])


def test_a_race_takes_turns_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ("cost", "found"), [(0.001, True), (0.02, True), (0.1, True), (0.2, True), (0.3, True), (0.5, False), (0.9, False)]
)
def test_all_measurements_of_a_first_start_take_under_two_seconds(
    cost: float, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call takes ``cost`` seconds of the stubbed clock, and a step too."""
    clock = SimpleNamespace(now=0.0)
    for module in (measurements, convolution_limits, arithmetic):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def call(_act: Any) -> float:
        clock.now += cost
        return cost

    monkeypatch.setattr(measurements, "seconds_of", call)
    monkeypatch.setattr(arithmetic, "seconds_of", call)
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"cpu_name": "X", "amx_bf16": True})
    engine = choose(RunConfig())
    assert 0 < clock.now < 2
    assert engine.precision == "bf16"
    assert ("images/s, with fp32" in engine.reason) == found
    assert found or engine.reason.endswith("not measured, because a step is too slow for that")
    clock.now = 0.0
    choose(RunConfig())  # measures what the first one had no time for
    assert clock.now == 0 if found else clock.now < 2


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXSKD_MEASURED", str(tmp_path / "elsewhere.json"))
    calls: list[SmallMaps] = []
    monkeypatch.setattr(convolution_limits, "measure_limits", lambda *_: calls.append(MEASURED) or MEASURED)
    assert limits_here("bf16", 1) == limits_here("bf16", 1) == MEASURED
    assert len(calls) == 1
    assert cache_file() == tmp_path / "elsewhere.json"
    (key,) = json.loads(cache_file().read_text())
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in key
    assert limits_here("fp32", 1) == MEASURED
    assert len(calls) == 2, "another type, other times"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert limits_here("bf16", 1) == MEASURED
    assert len(calls) == 3, "other threads, other times"


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"KEY": {"x": "1"}}', '{"KEY": {}}', '{"KEY": [1]}'])
def test_a_damaged_cache_is_replaced(content: str) -> None:
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content.replace("KEY", f"what; {measurements.processor()}"))
    assert remembered("what", lambda: {"x": 2.0}) == {"x": 2.0}
    assert remembered("what", lambda: {"x": 3.0}) == {"x": 2.0}


@pytest.mark.usefixtures("bf16")
def test_without_a_cache_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (limits_here("bf16", 1), limits_here("fp32", 1)) == (BF16, NOWHERE)
    rates = Rates(monkeypatch, 2, 1)
    engine = choose(RunConfig())
    assert engine == Engine("bf16", channels_last=True, fused=True, small_maps=MEASURED)
    assert engine.reason == "which this CPU multiplies in hardware; not measured, because the cache cannot be written"
    assert rates.shapes == []


def choose(run: RunConfig, world: World | None = None) -> Engine:
    engine, _ = choose_engine(run, CPU, World())
    net = make_toy().float()
    net.wide = torch.nn.Conv2d(128, 8, 3, bias=False)  # never called; products are measured for such convolutions only
    return measured(engine, run, CPU, world or World(), "toy", net, lambda net, x: [net(x)], (4, 3, 8, 8))


@pytest.mark.usefixtures("bf16")
def test_auto_takes_what_is_faster_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 14.94, 12.6)
    for _start in range(2):
        engine = choose(RunConfig())
        assert engine == Engine("fp32", channels_last=True, fused=True, small_maps=NOWHERE)
        assert engine.reason == "measured here: 14.9 images/s, with bf16 12.6"
    assert rates.shapes == [(4, 3, 8, 8)]
    cache_file().unlink()
    Rates(monkeypatch, 14.9, 34.7)
    assert choose(RunConfig()) == Engine("bf16", channels_last=True, fused=True, small_maps=MEASURED)


@pytest.mark.usefixtures("bf16")
def test_what_is_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 2, 1)
    assert choose(RunConfig(precision="bf16")) == Engine("bf16", channels_last=True, fused=True, small_maps=MEASURED)
    assert choose(RunConfig(precision="fp32")) == Engine("fp32", channels_last=True, fused=True, small_maps=MEASURED)
    off = choose(RunConfig(measure=False))
    assert off == Engine("bf16", channels_last=True, fused=True, small_maps=BF16)
    assert off.reason == "which this CPU multiplies in hardware"
    assert not pays(off, RunConfig(), torch.device("cuda"))
    assert rates.shapes == []


def test_a_cpu_without_bf16_takes_fp32_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"avx2": True})
    measured_for: list[str] = []
    monkeypatch.setattr(arithmetic, "limits_here", lambda kind, seconds: measured_for.append(kind) or MEASURED)
    rates = Rates(monkeypatch, 1, 2)
    engine = choose(RunConfig())
    assert engine == Engine("fp32", channels_last=True, fused=True, small_maps=MEASURED)
    assert engine.reason == "because this CPU does not multiply bf16 in hardware"
    emulated = choose(RunConfig(precision="bf16"))
    assert (emulated.reason, emulated.small_maps) == ("as asked for", BF16)
    assert measured_for == ["fp32"]
    assert rates.shapes == []


@pytest.mark.parametrize(
    "part",
    [
        torch.nn.Conv2d(64, 128, 3, bias=False),
        torch.nn.Conv2d(128, 128, 3, groups=128, bias=False),
        torch.nn.Conv2d(128, 128, 3),
        torch.nn.Linear(512, 512),
    ],
)
def test_products_are_measured_only_for_networks_that_may_gain(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "limits_here", lambda *_: pytest.fail("measured for nothing"))
    run = RunConfig(precision="fp32")
    engine, _ = choose_engine(run, CPU, World())
    assert (
        measured(engine, run, CPU, World(), "part", torch.nn.Sequential(part), lambda *_: [], (4, 64, 8, 8)) == engine
    )


@pytest.mark.usefixtures("bf16")
def test_the_first_process_decides(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_measurement_leaves_the_network_and_the_random_numbers_alone() -> None:
    net, engine = make_toy().float(), Engine("bf16", small_maps=BF16)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    rates = images_per_second(engine, net, lambda net, x: [net(x)], (4, 3, 8, 8), seconds=10)
    assert torch.equal(torch.randn(4), expected)
    assert rates.keys() == {"fp32", "bf16"}
    assert min(rates.values()) > 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.usefixtures("bf16")
def test_a_network_that_cannot_be_measured_is_trained_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no heads\nmore")

    monkeypatch.setattr(arithmetic, "images_per_second", fails)
    engine = choose(RunConfig())
    assert engine.precision == "bf16"
    assert engine.reason == "which this CPU multiplies in hardware; it cannot be measured: no heads"


def test_a_stored_choice_is_taken_as_far_as_the_device_can() -> None:
    engine = Engine("fp32", small_maps=None, reason="because")
    kept = to_store(engine)
    other = Engine("bf16", channels_last=True, small_maps=BF16)
    assert stored(other, kept, CPU) == Engine("fp32", channels_last=True)
    assert stored(other, kept, CPU).reason == "because"
    kept = to_store(Engine("bf16", small_maps=MEASURED))
    assert stored(engine, kept, CPU).small_maps == MEASURED
    assert stored(engine, kept, torch.device("cuda")) == Engine("bf16")
    assert stored(Engine(compile=True), kept, CPU) == Engine("bf16", compile=True)
    earlier = {"precision": "bf16", "reason": "because", "small_maps": [16, 256, 128]}
    assert stored(engine, earlier, CPU).small_maps == BF16
    assert stored(engine, earlier | {"small_maps": None}, CPU) == Engine("bf16")


SETTINGS: dict[str, Any] = {
    "backbone": "wrn_10_1", "method": "mixskd", "data": {"source": "npz", "image_size": 8},
    "run": {"epochs": 2, "batch_size": 6, "progress": False, "device": "cpu"},
}  # fmt: skip


@pytest.mark.usefixtures("bf16")
def test_a_resumed_run_goes_on_with_its_choice(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(mixskd.Listener):
        def epoch(self, row: dict[str, float]) -> None:
            raise KeyboardInterrupt

    class Told(mixskd.Listener):
        def start(self, info: Any) -> None:
            self.lines = info.description

    rates = Rates(monkeypatch, 3, 1)
    rates.products = BF16  # the network is too thin to be measured for others
    words = {**SETTINGS, "data": {"source": str(npz), "image_size": 8}}
    words["run"] = {**words["run"], "checkpoint_every_steps": 1}
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mixskd.train(out=str(out), listeners=[Stop()], **words)
    assert rates.shapes == [(12, 3, 8, 8)], "originals and mixes"
    rates.rates = {"fp32": 1, "bf16": 3}
    cache_file().unlink()
    told = Told()
    summary = mixskd.train(out=str(out), resume=True, listeners=[told], **words)
    assert len(rates.shapes) == 1
    assert summary["precision"] == "fp32"
    assert summary["precision_reason"] == "measured here: 3.0 images/s, with bf16 1.0"
    assert "precision: fp32, measured here: 3.0 images/s, with bf16 1.0" in told.lines


def test_a_damaged_choice_is_one_line(tmp_path: Path, npz: Path) -> None:
    words = {**SETTINGS, "data": {"source": str(npz), "image_size": 8}, "method": "baseline"}
    out = tmp_path / "run"
    mixskd.train(out=str(out), **words)
    state = load_checkpoint(out / "checkpoint.pt")
    assert state["arithmetic"]["precision"] in ("fp32", "bf16")
    save_checkpoint(out / "checkpoint.pt", {**state, "arithmetic": {**state["arithmetic"], "precision": "int3"}})
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged: arithmetic\.precision must be"):
        mixskd.train(out=str(out), resume=True, **words)


@pytest.mark.usefixtures("bf16")
def test_a_benchmark_has_the_engine_of_a_run(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(monkeypatch, 3, 1)
    rates.products = BF16
    engine, _ = engine_of(build_experiment({**SETTINGS, "data": {"source": str(npz), "image_size": 8}}))
    assert (engine.precision, rates.shapes) == ("fp32", [(12, 3, 8, 8)])
