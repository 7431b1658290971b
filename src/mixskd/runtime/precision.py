"""Choose the device and the precision of matrix products."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from mixskd.errors import UserError, first_line

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Products in ``precision`` (``fp32``, ``bf16`` or ``fp16``) within the context."""
    return torch.autocast(device.type, TYPES[precision], enabled=precision != "fp32")


@contextmanager
def full_fp32() -> Iterator[None]:
    """No TF32 (10 bits of mantissa) on GPUs within the context, or in the function that it decorates."""
    with _without_advice():
        found: list[tuple[Fp32Setting, Any]] = []
        for setting in _settings():
            with suppress(RuntimeError):  # torch does not read an older setting that contradicts a newer one
                found.append((setting, setting.read()))
        for setting, _ in found:
            setting.write(setting.full)
    try:
        yield
    finally:
        with _without_advice():
            for setting, before in found:
                setting.write(before)


def use_tf32_as_usual() -> None:
    """TF32 on GPUs as torch uses it by default: in fp32 convolutions, and not in matrix products."""
    with _without_advice():
        for setting in _settings():
            setting.write(setting.usual)


class Fp32Setting(NamedTuple):
    """One of torch's settings of fp32 products: its value without TF32, and the usual one."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    full: Any
    usual: Any


def _settings() -> Iterator[Fp32Setting]:
    """All of them. The older ones come first, because they overwrite the newer ones, which torch has from 2.9 on.

    Both are written, so that a caller can read either.
    """
    cudnn = torch.backends.cudnn
    yield Fp32Setting(partial(getattr, cudnn, "allow_tf32"), partial(setattr, cudnn, "allow_tf32"), False, True)
    yield Fp32Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest", "highest")
    matmuls = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)
    others = getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)
    for kind, usual in (*((x, "ieee") for x in matmuls), *((x, "tf32") for x in others)):
        if hasattr(kind, "fp32_precision"):
            name = "fp32_precision"
            yield Fp32Setting(partial(getattr, kind, name), partial(setattr, kind, name), "ieee", usual)


@contextmanager
def _without_advice() -> Iterator[None]:
    """torch 2.9 and later advise against the older settings, even where they are only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        yield


def choose_device(name: str) -> torch.device:
    """``auto`` is the current CUDA device if it works, else the CPU; a GPU becomes the process's current device.

    Raises UserError for a device that is not there or does not work, for one that is neither a CPU nor an NVIDIA or AMD
    GPU, and for an index under ``torchrun``, which gives each process its own GPU.
    """
    if name == "auto":
        gpu = torch.device("cuda")
        return gpu if torch.cuda.is_available() and why_not_use(gpu) is None else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"there is no device {name!r}; use cpu, cuda, cuda:N, or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported, because some methods need float64; use cpu, cuda, or auto")
    if device.type == "cuda" and device.index is not None:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise UserError(f"torchrun gives each process its own GPU; use --run.device cuda instead of {name}")
        if not device.index < torch.cuda.device_count():
            raise UserError(f"device {name!r} does not exist; this machine has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(device)
    if reason := why_not_use(device):
        raise UserError(f"device {name!r} does not work: {reason}; use cpu or auto")
    return device


@cache
def why_not_use(device: torch.device) -> str | None:
    """Why ``device`` does not work, found by adding numbers on it; None if it does.

    A GPU may be there for which this torch holds no code, or no memory may be left on it.
    """
    try:
        works = torch.ones(8, device=device).sum().item() == 8
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        return first_line(error)
    return None if works else "it adds numbers wrongly"


def device_name(device: torch.device) -> str:
    """The name of the hardware: ``NVIDIA H100``, or a CPU with its instruction sets: ``AMD EPYC (avx2)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    capabilities = cpu_capabilities()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(unit)]
    return f"{name} ({', '.join(units)})" if units else name


def cpu_capabilities() -> Mapping[str, Any]:
    """The instruction sets and the name of the processor; before torch 2.11 only the set that torch uses."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "avx512_f": torch.cpu._is_avx512_supported(),
        "avx2": torch.cpu._is_avx2_supported(),
    }


def choose_precision(name: str, device: torch.device) -> str:
    """``auto`` is bf16 where the hardware multiplies it, else fp32. Raises UserError for fp16 on a CPU.

    On a CPU bf16 is faster for dense convolutions only; :mod:`mixskd.training.measured_precision` measures the network.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("fp16 with loss scaling needs a GPU; use --run.precision bf16 or fp32 on the CPU")
    return name


def why_precision(name: str, device: torch.device) -> str:
    """Why :func:`choose_precision` chooses so for the setting ``name``, for a line that begins with its choice."""
    if name != "auto":
        return "as set"
    kind = "GPU" if device.type == "cuda" else "CPU"
    if has_bf16(device):
        return f"which this {kind} multiplies in hardware"
    return f"because this {kind} does not multiply bf16 in hardware"


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` has bf16 matrix arithmetic in hardware: a recent GPU, or a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = cpu_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False
