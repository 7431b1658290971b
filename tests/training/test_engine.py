"""What is chosen for a GPU, and what is set once in a process, on stubs."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch._inductor import config as inductor

from mixskd.benchmarking.variants import variants_of
from mixskd.config import RunConfig
from mixskd.data import prefetch
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.training import engine as engines
from mixskd.training.engine import Engine, choose_engine, configure_process
from mixskd.training.interrupt import Interrupt

GPU = torch.device("cuda")
DEFAULT = Engine("bf16", channels_last=True, fused=True, compile=True, cuda_graphs=True)


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(engines, "why_not_compile", lambda _device: None)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gpus_compile_and_record_the_step(precision: str, size: int) -> None:
    engine, notes = choose_engine(RunConfig(precision=precision), GPU, World(0, size))
    assert engine == Engine(precision, channels_last=True, fused=True, compile=True, cuda_graphs=True)
    assert notes == ["the first step compiles the method, which takes a minute or two"]


def test_synchronised_norms_are_neither_compiled_nor_recorded() -> None:
    engine, notes = choose_engine(RunConfig(sync_bn=True), GPU, World(0, 2))
    assert engine == Engine("bf16", channels_last=True, fused=True)
    assert notes == [f"the step is not compiled: {engines.WAITS}"]
    for words in ({"compile": "always"}, {"cuda_graphs": "always"}):
        with pytest.raises(UserError, match=r"run\.(compile is not possible|cuda_graphs needs GPUs)"):
            choose_engine(RunConfig(sync_bn=True, **words), GPU, World(0, 2))


def test_variants_record_only_fused_optimizers() -> None:
    variants = variants_of(DEFAULT, "cuda")
    assert not variants["without_fused"].engine.fused
    for name, variant in variants.items():
        assert variant.engine.fused or not variant.engine.cuda_graphs, name


DETERMINISTIC = hasattr(inductor, "deterministic")  # torch has it from 2.10 on


@pytest.fixture
def _restored() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)
    if DETERMINISTIC:
        inductor.deterministic = False


@pytest.mark.usefixtures("_restored")
def test_steps_of_changing_shapes_are_neither_compiled_nor_timed_by_cudnn() -> None:
    engine, notes = choose_engine(RunConfig(precision="bf16"), GPU, World(), fixed_shapes=False)
    assert engine == Engine("bf16", channels_last=True, fused=True)
    assert notes == []
    torch.backends.cudnn.benchmark = True
    configure_process(GPU, deterministic=False, fixed_shapes=False)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("_restored")
def test_configure_process_sets_tf32_and_determinism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, True
    configure_process(GPU, deterministic=False)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, False)
    assert torch.backends.cudnn.benchmark
    assert not (DETERMINISTIC and inductor.deterministic)
    configure_process(GPU, deterministic=True)
    assert not torch.backends.cudnn.benchmark
    assert not DETERMINISTIC or inductor.deterministic
    assert torch.are_deterministic_algorithms_enabled()
    _, notes = choose_engine(RunConfig(precision="fp32", compile="never"), GPU, World())
    assert notes == ["fp32 convolutions multiply in TF32 (10 bits of mantissa), as torch does by default"]


@pytest.mark.parametrize(
    "warning",
    [
        UserWarning("TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled."),
        UserWarning("Please use the new API settings to control TF32 behavior, such as"),
        DeprecationWarning("This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks in the child."),
    ],
)
def test_warnings_of_a_gpu_are_not_errors(warning: Warning) -> None:
    """The step would go on without what such an error ends, and the tests would not show it."""
    warnings.warn(warning, stacklevel=1)
    with pytest.raises(UserWarning):
        warnings.warn("another", UserWarning, stacklevel=1)


def test_side_stream_is_kept_between_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    prefetch.side_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or len(made))
    for _epoch in range(3):
        assert list(prefetch.ahead([], GPU)) == []
    assert made == [GPU]
    prefetch.side_stream.cache_clear()


def test_first_signal_is_answered_and_the_second_waits_for_a_save(capfd: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let programs in the background ignore it
    with Interrupt(World(), answer="stopping soon") as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert "SIGINT: stopping soon" in capfd.readouterr().err
        assert interrupt.signal() == signal.SIGINT
        with interrupt.held():
            signal.raise_signal(signal.SIGINT)
        assert "SIGINT: the checkpoint is being saved" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_exchange_signals_every_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(World, "highest", lambda _self, number: asked.append(number) or number)
    several, alone = Interrupt(World(0, 2), every=5), Interrupt(World(), every=5)
    several.requested = alone.requested = 15
    assert [several.signal() for _ in range(10)] == [0, 0, 0, 0, 15] * 2
    assert asked == [15, 15]
    assert alone.signal() == 15
