"""The arithmetic of a run: the device and the type of the products."""

from __future__ import annotations

import platform

import torch

from mixskd.errors import UserError

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Products in ``precision`` (``fp32``, ``bf16`` or ``fp16``) within the context."""
    return torch.autocast(device.type, TYPES[precision], enabled=precision != "fp32")


def choose_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device, else the CPU. Raises UserError if the device named does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {name!r} is not there; use cpu, cuda, cuda:N, or auto") from None
    return device


def device_name(device: torch.device) -> str:
    """The hardware, for a record: ``NVIDIA H100``, or a CPU with what bears on its speed: ``AMD EPYC (avx2)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    capabilities = torch.cpu.get_capabilities()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(unit)]
    return f"{name} ({', '.join(units)})" if units else name


def choose_precision(name: str, device: torch.device) -> str:
    """``auto`` is bf16 where the hardware multiplies it, else fp32. Raises UserError for fp16 on a CPU."""
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UserError("fp16 with loss scaling needs a GPU; use --run.precision bf16 or fp32 on the CPU")
    return name


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` has bf16 matrix arithmetic in hardware: a recent GPU, or a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False
