"""Which errors say that there is too little memory, by what torch and the libraries below it write."""

from __future__ import annotations

import pytest
import torch

from mixskd.errors import UserError
from mixskd.training.memory import is_out_of_memory

AcceleratorError: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        torch.distributed.DistBackendError("NCCL error\nLast error:\nFailed to CUDA calloc async 608 bytes"),
        torch.distributed.DistBackendError("NCCL error\nLast error:\nCuda failure 2 'out of memory'"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    ],
)
def test_too_little_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        RuntimeError("NCCL error: remote process exited"),
        UserError("the memory of cuda is too small; it is out of memory"),
        ValueError("out of memory"),
    ],
)
def test_another_error(error: Exception) -> None:
    assert not is_out_of_memory(error)
