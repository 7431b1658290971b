"""The step waits for nothing, compiles once, and takes the same updates however it is carried out."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from mixskd.backbones import build_backbone
from mixskd.config import OptimConfig, RunConfig
from mixskd.data.batch import Batch
from mixskd.data.needs import DataNeeds
from mixskd.errors import UserError
from mixskd.methods import METHODS
from mixskd.methods.base import Method
from mixskd.probing.classifiers import Linear
from mixskd.probing.head import start_heads
from mixskd.runtime.distributed import World
from mixskd.training.engine import Engine, choose_engine, why_not_compile
from mixskd.training.graphs import GraphedStep
from mixskd.training.step import TrainStep, build_step
from mixskd.training.tally import ROWS, Tally
from tests.conftest import make_toy
from tests.methods.support import make
from tests.training import cuda_stub

CPU = torch.device("cpu")
IMAGES, CLASSES = 20, 5
OPTIM = OptimConfig(lr=0.05)
CLIPPED = OptimConfig(lr=0.05, clip_norm=1.0)
FROZEN = OptimConfig(lr=0.05, norms="frozen")


def make_method(name: str) -> Method:
    torch.manual_seed(0)
    return make(name, make_toy().float(), IMAGES)


def make_batch(needs: DataNeeds, step: int, device: torch.device = CPU, size: int = 8, count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(step)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, 3, size, size, generator=generator).to(device)

    images, labels = draw(count), torch.randint(CLASSES, (count,), generator=generator).to(device)
    extra = {}
    if needs.views > 1:
        extra["views"] = draw(count, needs.views - 1)
    if needs.partners:
        extra["partners"] = draw(count, needs.partners)
    if needs.indices:
        extra["indices"] = torch.randperm(IMAGES, generator=generator)[:count].to(device)
    if needs.slots:
        extra["slots"] = torch.arange(count, device=device)
    return Batch(images.contiguous(memory_format=torch.channels_last), labels, extra)


def losses(method: Method, engine: Engine, steps: int, device: torch.device = CPU, size: int = 8) -> list[float]:
    step = build_step(method, OPTIM, device, engine)
    batches = [make_batch(method.needs, i, device, size) for i in range(steps)]
    found = [
        step(batch, 0.05 / (i + 1), seed=i, progress=(i + 1) / 10)["loss"].item() for i, batch in enumerate(batches)
    ]
    check_nothing_was_left_out(step)
    return found


def forget_what_was_compiled() -> None:
    torch._dynamo.reset()
    counters.clear()


def check_nothing_was_left_out(step: TrainStep) -> None:
    """A step that cannot be compiled or recorded goes on without, and would agree with an eager one as well."""
    assert step.notes == []
    if step.engine.compile:
        assert step.method._compiled_call_impl is not None
        assert counters["stats"]["unique_graphs"] >= 1
        assert not counters["graph_break"]
    if step.engine.cuda_graphs:
        assert isinstance(step.update, GraphedStep)
        assert step.update.graph is not None


class HostWaits(TorchDispatchMode):
    """Notes what makes the host wait for a GPU: values, errors or sizes that are read back, and constants sent over."""

    names = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
    names += ("_linalg_check_errors", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.names or (name.startswith("index") and self.masked(args)):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def masked(args: Any) -> bool:
        places = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in places)


@pytest.mark.parametrize("name", METHODS)
def test_step_and_tally_make_the_host_wait_for_nothing(name: str) -> None:
    method = make_method(name)
    step, tally = build_step(method, CLIPPED, CPU, Engine(fused=True)), Tally()
    for i in range(2):
        batch = make_batch(method.needs, i)
        with HostWaits() as waits:
            tally.add(step(batch, 0.05, seed=i, progress=(i + 1) / 2), i)
        assert waits.seen == [], f"step {i}"


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: x.unique(),
        lambda x: torch.linalg.solve(x, x), lambda x: x + torch.tensor([1.0]),
    ],
)  # fmt: skip
def test_host_waits_are_detected(wait: Any) -> None:
    with HostWaits() as waits:
        wait(torch.eye(3))
    assert waits.seen


QUICK = ("mixskd", "pskd", "dlb", "bake")


@pytest.mark.parametrize(
    ("name", "backend", "optim"),
    [
        *[(name, "aot_eager", OPTIM) for name in QUICK],
        ("dlb", "inductor", OPTIM),
        ("baseline", "aot_eager", FROZEN),
        *[pytest.param(m, "aot_eager", OPTIM, marks=pytest.mark.slow) for m in METHODS if m not in QUICK],
        *[pytest.param(m, "inductor", OPTIM, marks=pytest.mark.slow) for m in METHODS if m != "dlb"],
        *[pytest.param(m, "aot_eager", FROZEN, marks=pytest.mark.slow) for m in METHODS if m != "baseline"],
    ],
)
def test_compiled_step_compiles_once_and_gives_the_same_updates(
    name: str, backend: str, optim: OptimConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the compiler's own division into forward and backward, which computes some values twice. Images recur.

    With frozen norms the classifiers begin as a probe, as in fine-tuning.
    """
    if backend == "inductor" and (why := why_not_compile(CPU)):
        pytest.skip(why)
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=backend))
    torch._dynamo.reset()
    counters.clear()

    def updated(engine: Engine) -> Method:
        torch.manual_seed(0)
        method = make(name, make_toy(), IMAGES).double()
        if optim is FROZEN:
            weights = np.random.default_rng(0).normal(size=(CLASSES, method.backbone.head.in_features + 1))
            start_heads(method, Linear(weights[:, 1:], weights[:, 0]))
        step = build_step(method, optim, CPU, engine, started=optim is FROZEN)
        for i in range(4):
            batch = make_batch(method.needs, i)
            extra = {key: x.double() if x.is_floating_point() else x for key, x in batch.extra.items()}
            step(Batch(batch.images.double(), batch.labels, extra), 0.05 / (i + 1), seed=i, progress=(i + 1) / 10)
        return method

    plain = updated(Engine())
    assert not counters["stats"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = updated(Engine(compile=True))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-7, atol=1e-9, msg=key)
    trained = {key for key, x in compiled.backbone.named_buffers() if key.endswith("batches_tracked") and x > 0}
    assert bool(trained) == (optim is OPTIM)


def test_accumulated_parts_give_the_update_of_the_batch() -> None:
    def weights(accumulate: int) -> Tensor:
        method = make_method("label_smoothing").eval()  # with running statistics the parts do not matter
        step = build_step(method, OPTIM, CPU, Engine(), accumulate)
        step(make_batch(method.needs, 0), 0.05, seed=0)
        return torch.cat([p.detach().flatten() for p in method.parameters()])

    assert torch.allclose(weights(1), weights(4), atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_long_gradient_is_clipped_to_the_norm(accumulate: int) -> None:
    def change(clip_norm: float) -> Tensor:
        method = make_method("label_smoothing").eval()
        before = torch.cat([p.detach().flatten() for p in method.parameters()])
        optim = OptimConfig(lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=clip_norm)
        build_step(method, optim, CPU, Engine(), accumulate)(make_batch(method.needs, 0), 1.0, seed=0)
        return torch.cat([p.detach().flatten() for p in method.parameters()]) - before

    whole = change(0.0)  # minus the gradient
    norm = whole.norm()
    for bound in (norm / 3, norm * 3):
        expected = whole * (bound / norm).clamp(max=1)
        assert torch.allclose(change(bound.item()), expected, atol=1e-5 * norm.item())


def test_first_step_skipped_by_the_loss_scaler_changes_nothing() -> None:
    method = make_method("baseline")
    step = build_step(method, OPTIM, CPU, Engine(precision="fp16", fused=True))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = {name: value.clone() for name, value in method.named_parameters()}
    step(make_batch(method.needs, 0), 0.05, seed=0)
    assert step.scaler.get_scale() < 2.0**120
    assert all(torch.equal(value, before[name]) for name, value in method.named_parameters())
    momenta = [state["momentum_buffer"] for state in step.optimizer.state.values()]
    assert len(momenta) == len(before)
    assert not any(buffer.any() for buffer in momenta)


def test_tally_names_the_first_bad_step() -> None:
    tally = Tally({"loss": 1.0, "cls": 2.0})
    for i, value in enumerate([1.0, float("nan"), float("inf"), 2.0]):
        tally.add({"loss": torch.tensor(1.0), "cls": torch.tensor(value)}, 7 + i)
    assert tally.first_bad == {"loss": -1, "cls": 8}
    assert tally.sums["loss"] == 5


def test_sums_do_not_depend_on_when_they_are_read_or_restored() -> None:
    steps = [{"loss": x.exp(), "cls": x} for x in 4 * torch.randn(3 * ROWS + 5, generator=torch.manual_seed(0))]
    expected = {name: sum(terms[name].item() for terms in steps) for name in ("loss", "cls")}
    for every in (1, 7, ROWS, 100, len(steps) + 1):
        tally, restored = Tally(), Tally()
        for i, terms in enumerate(steps):
            tally.add(terms, i)
            restored.add(terms, i)
            if i % every == every - 1:
                assert tally.sums
                restored = Tally(restored.sums)
        assert tally.sums == restored.sums == expected


@pytest.mark.parametrize("hardware", [True, False])
def test_engine_choices_on_a_cpu(monkeypatch: pytest.MonkeyPatch, hardware: bool) -> None:
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"avx512_bf16": hardware})
    assert choose_engine(RunConfig(), CPU, World()) == (
        Engine(
            "bf16" if hardware else "fp32",
            channels_last=True,
            fused=True,
        ),
        [],
    )
    engine, notes = choose_engine(RunConfig(precision="bf16"), CPU, World())
    assert engine == Engine("bf16", channels_last=True, fused=True)
    assert [note.partition(":")[0] for note in notes] == ([] if hardware else ["bf16 is emulated"])
    with pytest.raises(UserError, match=r"run\.cuda_graphs needs GPUs"):
        choose_engine(RunConfig(cuda_graphs="always"), CPU, World())
    with pytest.raises(UserError, match=r"run\.compile must be auto, always or never, not 'on'"):
        RunConfig(compile="on")


def test_step_is_eager_with_a_note_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match=r"run\.compile is not possible: Failed to find C compiler"):
        choose_engine(RunConfig(compile="always"), CPU, World())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    engine, notes = choose_engine(RunConfig(), torch.device("cuda"), World())
    assert engine == Engine("bf16", channels_last=True, fused=True, cuda_graphs=True)
    assert notes == ["the step is not compiled: Failed to find C compiler."]


WAYS = {
    "eager": Engine("bf16", channels_last=True, fused=True),
    "compiled": Engine("bf16", channels_last=True, fused=True, compile=True),
    "graphs": Engine("bf16", channels_last=True, fused=True, compile=True, cuda_graphs=True),
    "eager graphs": Engine("bf16", channels_last=True, fused=True, cuda_graphs=True),
}


def ways(precision: str) -> dict[str, Engine]:
    return {way: dataclasses.replace(engine, precision=precision) for way, engine in WAYS.items()}


@pytest.mark.parametrize("engine", [Engine(compile=True), Engine(fused=True, cuda_graphs=True)])
def test_failed_compiling_or_recording_is_detected(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the check that the tests on a GPU rely on, after a compiler or a recording that fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("not here")

    cuda_stub.install(monkeypatch)
    forget_what_was_compiled()
    if engine.compile:  # the compiler itself is a minute's work: any other does
        monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    assert len(losses(make_method("baseline"), engine, 5)) == 5
    monkeypatch.setattr(cuda_stub.Graph, "fails", RuntimeError("not here"))
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=fail))
    forget_what_was_compiled()
    with pytest.raises(AssertionError, match="not here"):
        losses(make_method("baseline"), engine, 5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["baseline", "mixskd", "pskd", "bake", "manifold_mixup", "cskd"])
def test_cuda_agrees_with_eager_for_every_engine(name: str, precision: str) -> None:
    found = {}
    for way, engine in ways(precision).items():
        forget_what_was_compiled()
        torch.manual_seed(0)
        method = make(name, build_backbone("wrn_10_1", CLASSES), IMAGES)
        found[way] = losses(method, engine, 8, torch.device("cuda"), 16)
    for way, values in found.items():
        assert values == pytest.approx(found["eager"], rel=3e-2), way


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_cuda_graphs_agree_in_their_updates(precision: str) -> None:
    """Batch statistics and weights, to the rounding of a GPU's sums; test_graphs has the bits, on a stub."""
    states = {}
    for way in ("eager", "eager graphs"):
        method = make_method("mixskd")
        losses(method, ways(precision)[way], 7, torch.device("cuda"))
        states[way] = method.state_dict()
    for name, value in states["eager"].items():
        assert torch.allclose(value.float(), states["eager graphs"][name].float(), rtol=1e-4, atol=1e-5), name
        if name.endswith("num_batches_tracked"):
            assert value.item() == 7


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mixskd", "pskd", "bake", "cutmix"])
def test_cuda_never_waits_and_never_recompiles(name: str, way: str, precision: str) -> None:
    forget_what_was_compiled()
    device = torch.device("cuda")
    method = make_method(name)
    step, tally = build_step(method, CLIPPED, device, ways(precision)[way]), Tally()
    batches = [make_batch(method.needs, i, device) for i in range(8)]
    for i in range(5):
        tally.add(step(batches[i], 0.05, seed=i), i)
    torch.cuda.synchronize()
    check_nothing_was_left_out(step)
    graphs = counters["stats"]["unique_graphs"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is experimental
        torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(5, 8):
            tally.add(step(batches[i], 0.05 / i, seed=i, progress=i / 10), i)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert counters["stats"]["unique_graphs"] == graphs
    assert tally.first_bad["loss"] == -1


@pytest.mark.gpu
def test_peak_memory_is_no_more_than_plain() -> None:
    peaks = {}
    for way, engine in {"plain": Engine(), **WAYS}.items():
        forget_what_was_compiled()
        torch.manual_seed(0)
        method = make("mixskd", build_backbone("wrn_16_2", 100))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step = build_step(method, OPTIM, torch.device("cuda"), engine)
        for i in range(6):
            step(make_batch(method.needs, i, torch.device("cuda"), 32, 64), 0.05, seed=i)
        check_nothing_was_left_out(step)
        peaks[way] = torch.cuda.max_memory_allocated()
    assert max(peaks.values()) <= peaks["plain"] * 1.05, peaks
