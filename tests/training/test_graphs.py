"""A recorded step on stubs of torch.cuda: the same updates, few launches, and what happens where recording fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixskd.backbones import build_backbone
from mixskd.config import DataConfig, OptimConfig
from mixskd.data.bundle import DataBundle, ImageSet
from mixskd.data.device_loader import DeviceLoader
from mixskd.data.plan import BatchPlan
from mixskd.data.policies import BATCH_POLICIES
from mixskd.data.preprocess import Preprocess
from mixskd.data.worker_loader import WorkerLoader
from mixskd.errors import UserError
from mixskd.methods import METHODS
from mixskd.methods.base import Method
from mixskd.runtime.distributed import World
from mixskd.training.engine import Engine
from mixskd.training.graphs import RecordingError, _release
from mixskd.training.step import build_step
from mixskd.training.tally import Tally
from tests.conftest import make_toy, make_toy_without_norm
from tests.methods.support import make
from tests.training import cuda_stub
from tests.training.test_step import HostWaits

CPU = torch.device("cpu")
GRAPHS = Engine(fused=True, cuda_graphs=True)
MARKS = ("_record_function_enter_new", "_record_function_exit")
VIEWS = ("_unsafe_view", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "t", "transpose",
         "unbind", "unsqueeze", "view", "alias", "empty", "new_empty", "empty_like", "resize_", "set_")  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts what a GPU would be sent outside of a replay: all but views, memory and marks for a profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not cuda_stub.within and name not in (*VIEWS, *MARKS):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def make_loader(
    method: Method,
    policy: str = "none",
    kind: type[DeviceLoader | WorkerLoader] = DeviceLoader,
    count: int = 20,
    *,
    deferred: bool = False,
    size_in: Callable[[int], int] | None = None,
) -> DeviceLoader | WorkerLoader:
    generator = np.random.default_rng(0)
    images = ImageSet(generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 5)
    data = DataBundle({"train": images}, tuple("abcde"), Preprocess(8))
    plan = BatchPlan(images.labels, 4, 0, method.needs, World())
    if kind is DeviceLoader:
        return DeviceLoader(data, plan, CPU, policy, deferred=deferred, size_in=size_in)
    return WorkerLoader(data, plan, CPU, DataConfig(augment=policy), workers=1, deferred=deferred)


def run(
    name: str,
    engine: Engine,
    accumulate: int = 1,
    policy: str = "none",
    epochs: int = 2,
    kind: type[DeviceLoader | WorkerLoader] = DeviceLoader,
    count: int = 20,
    ema: float = 0.0,
) -> tuple[Any, ...]:
    torch.manual_seed(0)
    method = make(name, make_toy().float(), count)
    loader, tally = make_loader(method, policy, kind, count, deferred=engine.cuda_graphs), Tally()
    step = build_step(method, OptimConfig(lr=0.05, clip_norm=1.0, ema=ema), CPU, engine, accumulate)
    counts, number = [], 0
    for epoch in range(epochs):
        batches = iter(loader.epoch(epoch))
        for _ in range(len(loader)):
            with Launches() as launches:
                batch = next(batches)
                terms = step(batch, 0.05 / (number + 1), seed=number, progress=(epoch + 1) / epochs)
                tally.add(terms, number)
            counts.append(launches.names)
            number += 1
    return method, step, tally, counts


@pytest.mark.parametrize(
    ("name", "policy", "kind"),
    [
        ("mixskd", "random_erasing", DeviceLoader),
        ("ddgsd", "none", DeviceLoader),
        ("bake", "cutout", DeviceLoader),
        ("pskd", "cutout", WorkerLoader),
        ("ict", "none", DeviceLoader),
    ],
)
@pytest.mark.parametrize(("precision", "accumulate"), [("fp32", 1), ("fp32", 2), ("fp16", 2)])
def test_recorded_step_gives_the_same_updates(
    name: str, policy: str, kind: type, precision: str, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading, draws, the scale of the loss and all: to the bit on this stub, where a replay runs the same kernels."""
    options: dict[str, Any] = {"kind": kind, "ema": 0.9}
    plain, plain_step, plain_tally, _ = run(name, Engine(precision, fused=True), accumulate, policy, **options)
    cuda_stub.install(monkeypatch)
    engine = dataclasses.replace(GRAPHS, precision=precision)
    graphed, step, tally, _ = run(name, engine, accumulate, policy, **options)
    assert step.update.graph.replays == 7
    assert step.notes == []
    assert step.scaler.is_enabled() == (precision == "fp16")
    assert step.scaler.state_dict() == plain_step.scaler.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, graphed.state_dict()[key]), key
    for key, value in plain_step.ema.module.state_dict().items():
        assert torch.equal(value, step.ema.module.state_dict()[key]), key
    assert tally.sums == plain_tally.sums


# The replay, and its two fills of the generator's state.
REPLAY = 3


@pytest.mark.parametrize("policy", ["none", *BATCH_POLICIES])
@pytest.mark.parametrize("name", METHODS)
def test_at_most_eight_launches_a_step(name: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing, the copies of indices and numbers, the rate, the replay, and the sums.

    The first step of an epoch also brings its order and the progress to the device.
    """
    cuda_stub.install(monkeypatch)
    *_, counts = run(name, GRAPHS, policy=policy, count=12, ema=0.9)
    for names in counts[4:]:
        assert len(names) + REPLAY <= 8, names


@pytest.mark.parametrize("policy", ["none", *BATCH_POLICIES])
@pytest.mark.parametrize("name", ["pskd", "bake", "augmix_jsd"])
def test_at_most_eight_launches_a_step_with_workers(name: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images, and the numbers of a policy with them, are one transfer, which this device does without."""
    cuda_stub.install(monkeypatch)
    *_, counts = run(name, GRAPHS, policy=policy, kind=WorkerLoader, count=12, ema=0.9)
    for names in counts[4:]:
        assert len(names) + REPLAY + 1 <= 8, names


def test_a_step_is_recorded_for_each_size_of_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    finals = []
    for engine in (Engine(fused=True), GRAPHS):
        if engine.cuda_graphs:
            cuda_stub.install(monkeypatch)
        torch.manual_seed(0)
        method, replays = make("baseline", make_toy().float()), []
        loader = make_loader(method, deferred=engine.cuda_graphs, size_in=lambda epoch: (4, 8)[epoch])
        step = build_step(method, OptimConfig(lr=0.05), CPU, engine)
        for epoch in range(2):
            for i, batch in enumerate(loader.epoch(epoch)):
                step(batch, 0.05, seed=5 * epoch + i)
            replays.append(getattr(getattr(step.update, "graph", None), "replays", 0))
        finals.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert replays == [2, 2], "three steps of each size of five are not replayed"
    assert torch.equal(*finals)


def test_an_eager_step_launches_many() -> None:
    *_, counts = run("mixskd", Engine(fused=True), epochs=1)
    assert len(counts[-1]) > 300, "the counter sees what it should count"
    assert not {"index_put", "index_put_", "index_add", "index_add_"} & set(counts[-1]), "mixes are gathers both ways"


def test_counters_and_casts_on_the_page_of_benchmarks_are_counted() -> None:
    with torch.device("meta"):
        method = make("mixskd", build_backbone("cifar_resnet18", 100), 20)
    kinds = [type(module) for module in method.modules()]
    page = " ".join((Path(__file__).parents[2] / "benchmarks/README.md").read_text().split())
    norms, convolutions = kinds.count(nn.BatchNorm2d), kinds.count(nn.Conv2d)
    assert f"Its {norms} batch norms add 1 to their own counters, and its {convolutions} convolutions cast" in page


def test_recording_allows_other_threads_to_use_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's thread pins memory meanwhile, which the usual mode forbids."""
    cuda_stub.install(monkeypatch)
    run("baseline", GRAPHS, epochs=1)
    assert cuda_stub.Graph.modes == ["thread_local"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_failed_recording_loses_no_update(
    precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, *_ = run("mixskd", Engine(precision, fused=True))
    cuda_stub.install(monkeypatch)
    broken = RuntimeError("operation failed due to a previous error during capture")
    broken.__context__ = RuntimeError("not permitted when stream is capturing\nmore")
    monkeypatch.setattr(cuda_stub.Graph, "fails", broken)
    method, step, *_ = run("mixskd", Engine(precision, fused=True, cuda_graphs=True))
    reason = "the step is not replayed as a CUDA graph: RuntimeError: not permitted when stream is capturing"
    assert step.notes == [reason]
    assert reason in caplog.text
    assert not cuda_stub.Graph.generator.state.recording, "older releases of torch would refuse to draw from it"
    assert cuda_stub.Graph.pools == [], "and would never reuse memory that other streams have used"
    assert cuda_stub.Graph.kept == [], "and would keep the memory of the recorded step"
    assert not step.engine.cuda_graphs
    for key, value in plain.state_dict().items():
        assert torch.equal(value, method.state_dict()[key]), key


def test_memory_of_an_ended_recording_is_released_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch itself releases the pool of a recording that has ended, even if its step raised."""
    cuda_stub.install(monkeypatch)
    graph = cuda_stub.Graph()
    for ended in (True, False):
        graph.ended, cuda_stub.Graph.pools, cuda_stub.Graph.kept = ended, [(0, (0, 1))], [(0, (0, 1))]
        _release(graph, (0, 1))
        assert len(cuda_stub.Graph.kept) == ended


class Breaks(torch.optim.AdamW):
    """Fails in its fourth step, after the loss scaler has given it its own scale."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        if self.steps == 4:
            assert self.grad_scale is not None
            self.grad_scale = self.grad_scale * 1000
            error = RuntimeError("not permitted when stream is capturing")
            raise RecordingError("cannot be recorded") from error
        return super().step(closure)


def test_leftovers_of_the_loss_scaler_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repeated step would multiply its scale by what a step left that was never taken."""
    finals = []
    for optimizer in (torch.optim.AdamW, Breaks):
        monkeypatch.setattr(torch.optim, "AdamW", optimizer)
        torch.manual_seed(0)
        method = make("baseline", make_toy_without_norm())
        step = build_step(method, OptimConfig(name="adamw", lr=0.01), CPU, Engine("fp16", fused=True))
        batch = next(iter(make_loader(method).epoch(0)))
        for i in range(5):
            step(batch, 0.01, seed=i)
        finals.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert step.optimizer.steps == 6
    assert step.notes == ["the step is not replayed as a CUDA graph: cannot be recorded"]
    assert torch.equal(*finals)


def test_graph_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_stub.install(monkeypatch)
    _, step, *_ = run("baseline", GRAPHS, epochs=1)
    graph = step.update.graph
    step.close()
    assert graph.play is None
    assert (step.update.graph, step.update.outputs) == (None, {})
    step.close()
    run("baseline", Engine(), epochs=1)[1].close()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any) -> None:
        raise error

    monkeypatch.setattr("mixskd.training.step.autocast", too_much)
    with pytest.raises(UserError, match=r"small for a step of 4 images; try a larger --run\.accumulate \(now 2\)"):
        run("baseline", Engine(), accumulate=2)


def test_compiler_failure_in_the_first_step_loses_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails after the forward pass, which has moved the statistics of the batch norms."""
    plain, *_ = run("mixskd", Engine(fused=True))

    def compile_badly(self: Method, **_: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            self.forward(*args, **kwargs)
            raise RuntimeError("no triton for this GPU\nmore")

        self._compiled_call_impl = call

    monkeypatch.setattr(Method, "compile", compile_badly)
    method, step, *_ = run("mixskd", Engine(fused=True, compile=True))
    assert step.notes == ["the step is not compiled: RuntimeError: no triton for this GPU"]
    assert not step.engine.compile
    for key, value in plain.state_dict().items():
        assert torch.equal(value, method.state_dict()[key]), key


def test_errors_of_the_method_are_raised() -> None:
    step = build_step(make("bake", make_toy().float(), 20), OptimConfig(), CPU, Engine(fused=True))
    batch = next(iter(make_loader(make("baseline", make_toy().float())).epoch(0)))
    with pytest.raises(UserError, match="this method needs partners"):
        step(batch, 0.1, seed=0)


def test_learning_rate_is_on_the_device_only_for_fused_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unfused optimizer would read it back for each parameter; it gets torch's foreach form on a GPU."""
    cuda_stub.install(monkeypatch)
    _, step, *_ = run("baseline", Engine(), epochs=1)
    assert step.rates is None
    assert step.optimizer.defaults["fused"] is step.optimizer.defaults["foreach"] is None
    method, step, *_ = run("baseline", GRAPHS, epochs=1)
    assert step.rates is not None
    assert step.rates.data_ptr() == step.optimizer.param_groups[0]["lr"].data_ptr()
    unfused = torch.optim.SGD(method.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer, reads in ((step.optimizer, False), (unfused, True)):
        with HostWaits() as waits:
            optimizer.step()
        assert ("_local_scalar_dense" in waits.seen) == reads
