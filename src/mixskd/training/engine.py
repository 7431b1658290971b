"""How a step is executed: number types, memory layout, compilation, CUDA graphs. The mathematics stays the same."""

import dataclasses
import os
from dataclasses import dataclass, field

import torch

from mixskd.config import RunConfig
from mixskd.errors import UserError, first_line
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import choose_precision, has_bf16, use_tf32_as_usual, why_not_use, why_precision
from mixskd.training.memory import keep_freed_memory


@dataclass(frozen=True)
class Engine:
    """The optimisations of a step. The default has none.

    Args:
        precision: of matrix products and convolutions: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: memory layout of weights and maps.
        fused: whether the optimizer is one kernel.
        compile: whether ``torch.compile`` compiles the method's forward and backward pass.
        cuda_graphs: whether the whole step is replayed as one CUDA graph; the optimizer must be fused.
        checkpoint: whether the backward pass computes the maps within a stage again instead of keeping them.
        reason: the reason for the precision, for a person.
    """

    precision: str = "fp32"
    channels_last: bool = False
    fused: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    checkpoint: bool = False
    reason: str = field(default="", compare=False)


def choose_engine(
    run: RunConfig, device: torch.device, world: World, *, fixed_shapes: bool = True
) -> tuple[Engine, list[str]]:
    """The best engine for ``device`` that ``run`` allows, and notes for a person.

    Steps whose shapes change from batch to batch (not ``fixed_shapes``) are neither compiled nor recorded.
    Raises UserError for a setting that is not possible here.
    """
    precision, notes = choose_precision(run.precision, device), []
    if precision == "bf16" and not has_bf16(device):
        notes.append(f"bf16 is emulated: this {device.type} does not multiply it; --run.precision auto takes fp32")
    cuda = device.type == "cuda"
    if not cuda and run.device == "auto" and torch.cuda.is_available():
        notes.append(f"the CPU is used, because the GPU does not work: {why_not_use(torch.device('cuda'))}")
    if cuda and precision == "fp32":
        notes.append("fp32 convolutions multiply in TF32 (10 bits of mantissa), as torch does by default")
    if not fixed_shapes:
        run = dataclasses.replace(run, compile="never", cuda_graphs="never")
    compiled = run.compile == "always" or (run.compile == "auto" and cuda)
    if compiled and (reason := WAITS if run.sync_bn else why_not_compile(device)):
        if run.compile == "always":
            raise UserError(f"run.compile is not possible: {reason}; leave it at auto")
        compiled = False
        notes.append(f"the step is not compiled: {reason}")
    if compiled:
        notes.append("the first step compiles the method, which takes a minute or two")
    # An eager stage that is computed again reads the state of the random numbers on the host.
    graphs = cuda and not run.sync_bn and (compiled or not run.checkpoint_activations)
    recorded = graphs and run.cuda_graphs != "never"
    if run.cuda_graphs == "always" and not graphs:
        raise UserError(
            "run.cuda_graphs needs GPUs, no run.sync_bn, and a compiled step with run.checkpoint_activations; try auto"
        )
    return Engine(
        precision=precision,
        channels_last=True,
        fused=True,
        compile=compiled,
        cuda_graphs=recorded,
        checkpoint=run.checkpoint_activations,
        reason=why_precision(run.precision, device),
    ), notes


# torch's synchronised norm reads the numbers of images of all processes back to the host.
WAITS = "with run.sync_bn each batch norm waits for the other processes on the host"


def for_optimizer(engine: Engine, name: str) -> Engine:
    """``engine`` without fused kernels and CUDA graphs if the optimizer ``name`` is one of timm, which has neither."""
    if not name.startswith("timm/"):
        return engine
    return dataclasses.replace(engine, fused=False, cuda_graphs=False)


def configure_process(device: torch.device, *, deterministic: bool, fixed_shapes: bool = True) -> None:
    """Set up the process: keep freed memory (CPU), choose the fastest convolutions unless ``deterministic`` (CUDA).

    Where shapes change from batch to batch (not ``fixed_shapes``), timing convolutions for each shape would cost more
    than it gains.

    fp32 steps on a GPU: TF32 in convolutions, not in matrix products. These are torch's own defaults, with which the
    released code ran; they are set here so that nothing else decides them. The scores of deployed weights
    are without TF32.
    """
    if device.type == "cpu":
        keep_freed_memory()
        return
    use_tf32_as_usual()
    torch.backends.cudnn.benchmark = fixed_shapes and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        from torch._inductor import config as inductor

        if hasattr(inductor, "deterministic"):  # otherwise it chooses kernels by timing, which may differ between runs
            inductor.deterministic = True


def why_not_compile(device: torch.device) -> str | None:
    """Why ``torch.compile`` does not work for ``device``, found by trying it on a sum; None if it does."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(8, device=device))
    except Exception as error:  # the compiler may fail in any way
        return first_line(error)
    return None
