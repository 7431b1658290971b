"""How a process ends: foreseen failures are one line and code 2, all others one line and code 70."""

from __future__ import annotations

import errno
import re
import urllib.error
from pathlib import Path

import pytest
import torch

from mixskd.errors import UserError, exit_code
from mixskd.errors.faults import is_out_of_memory


def raising(error: BaseException):
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a\nb"), "mixskd: error: a b"),
        (UserError("name \x1b[2J\u202e"), r"mixskd: error: name \x1b[2J\u202e"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "file name too long"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "too many files are open; allow more (ulimit -n 4096)"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"b"), "cannot use b: is a directory"),
        (PermissionError(errno.EACCES, "Permission denied", "c"), "no permission to use c"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling it"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes"), "not enough memory"),
        (RuntimeError("could not create a primitive"), "not enough memory"),  # oneDNN's word for it
        (RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"), "another process"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:1] Broken pipe"), "another process of this run ended"),
        (torch.distributed.DistNetworkError("Connection reset by peer"), "another process of this run ended"),
        (
            torch.distributed.DistBackendError(
                "A call failed ... network error or a remote process exiting prematurely."
            ),
            "another process of this run ended",
        ),
        (RuntimeError("Too many open files. Communication with the workers is no longer possible."), "too many files"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "), "a process that loads images was"),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            "a process that loads images was stopped",
        ),
        (RuntimeError("unable to write to file </torch_7_1_2>: No space left on device (28)"), "/dev/shm is too small"),
        (RuntimeError("unable to allocate shared memory(shm) for file </x>: Success (0)"), "/dev/shm is too small"),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), "the package onnx is missing"),
        (urllib.error.URLError("unreachable"), "no answer from the network"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "no answer from the network"),
        ("\udcff".encode, "a name has characters"),
    ],
)
def test_expected_error_gives_one_line_and_exit_code_2(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    act = raising(error) if isinstance(error, BaseException) else lambda: error("utf-8")
    assert exit_code(act) == 2  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert said.startswith("mixskd: error: ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on the disk"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "there is not enough memory"),
        (TypeError("odd"), 70, "this is a bug of mixskd"),
    ],
)
@pytest.mark.parametrize(("rank", "place"), [("3", " in process 3"), ("0", ""), (None, "")])
def test_every_error_of_a_later_process_is_said_with_its_rank(
    error: Exception, code: int, message: str, rank: str | None, place: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert exit_code(raising(error)) == code
    assert capsys.readouterr().err.startswith(f"mixskd: error{place}: {message}")


@pytest.mark.parametrize("error", [TypeError("odd\nlines"), KeyError("x"), ModuleNotFoundError("m", name="mixskd.x")])
def test_what_nobody_foresaw_is_one_line_and_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert exit_code(raising(error)) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "this is a bug of mixskd" in said
    assert "--resume" in said
    found = re.search(r"full traceback is in (\S+);", said)
    assert found is not None
    assert Path(found[1]).is_relative_to(tmp_path)
    assert "Traceback" in Path(found[1]).read_text()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(raising(TypeError("odd")), debug=True) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "is shown above" in said.splitlines()[-1]
    monkeypatch.setenv("MIXSKD_DEBUG", "1")
    assert exit_code(raising(UserError("mine"))) == 2
    assert "Traceback" in capsys.readouterr().err


def test_fault_is_reported_without_a_writable_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/dev/null/none")
    assert exit_code(raising(TypeError("odd"))) == 70
    assert "--debug shows it" in capsys.readouterr().err


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
def test_message_for_out_of_memory(error: Exception) -> None:
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
def test_messages_of_other_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)
