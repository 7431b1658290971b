import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.backbones.staged import StagedBackbone
from mixskd.config import RunConfig
from mixskd.errors import UserError
from mixskd.runtime.distributed import World
from mixskd.runtime.precision import autocast, choose_device, choose_precision, device_name, full_fp32, why_not_use
from mixskd.tasks.scoring import evaluation_mode
from mixskd.training.engine import choose_engine, configure_process

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        ({"cpu_name": "AMD EPYC", "avx2": True, "avx512_bf16": True, "sse": True}, "AMD EPYC (avx512_bf16, avx2)"),
        ({"cpu_name": "AMD EPYC", "avx2": False}, "AMD EPYC"),
        ({"avx2": True}, "arm64 (avx2)"),
    ],
)
def test_name_of_the_cpu(capabilities: dict[str, object], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: capabilities)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert device_name(CPU) == name


def test_amx_multiplies_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixskd.runtime.precision.cpu_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", CPU) == "bf16"


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="fp16 with loss scaling needs a GPU"):
        choose_precision("fp16", CPU)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    why_not_use.cache_clear()
    yield
    why_not_use.cache_clear()


class Cards:
    """``torch.cuda`` with ``count`` GPUs, whose every operation fails by ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 2, error: str | None = None) -> None:
        self.error, self.current = error, None
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", self.set_device)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
        monkeypatch.setattr(torch, "ones", self.ones)

    def set_device(self, device: torch.device) -> None:
        self.current = device

    def ones(self, size: int, device: torch.device) -> torch.Tensor:
        if device.type == "cuda" and self.error:
            raise RuntimeError(self.error)
        return torch.full((size,), 1.0)


def test_a_gpu_that_is_named_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(monkeypatch)
    assert choose_device("cuda:1") == torch.device("cuda:1") == cards.current
    with pytest.raises(UserError, match=r"device 'cuda:2' does not exist; this machine has 2 GPUs"):
        choose_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"torchrun gives each process its own GPU; use --run\.device cuda"):
        choose_device("cuda:1")
    assert choose_device("auto") == torch.device("cuda")


def test_a_gpu_for_which_torch_holds_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    Cards(monkeypatch, error="CUDA error: no kernel image is available for execution on the device\nmore")
    assert choose_device("auto") == CPU
    with pytest.raises(
        UserError, match=r"device 'cuda' does not work: CUDA error: no kernel image .* on the device; use"
    ):
        choose_device("cuda")
    assert any(
        "the GPU does not work: CUDA error: no kernel image" in x for x in choose_engine(RunConfig(), CPU, World())[1]
    )


@pytest.fixture
def _restored() -> Iterator[None]:
    convolutions, benchmark = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = convolutions, benchmark
    torch.set_float32_matmul_precision("highest")


def tf32() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("_restored")
def test_tf32_is_as_it_was_after_scores_and_never_changed_by_a_choice_of_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Cards(monkeypatch)
    for before in ((True, True), (True, False), (False, True)):
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
        choose_device("auto")
        assert tf32() == before
        with evaluation_mode(torch.nn.Identity()):
            assert tf32() == (False, False)
        assert tf32() == before
        with evaluation_mode(torch.nn.Identity(), autocast(CPU, "fp32")):
            assert tf32() == before, "the scores of an epoch have it as the steps do"


def newer() -> dict[str, str]:
    """The settings by which torch 2.9 and later decide what fp32 is multiplied in."""
    kinds = {"conv": torch.backends.cudnn.conv, "rnn": torch.backends.cudnn.rnn, "matmul": torch.backends.cuda.matmul}
    return {name: kind.fp32_precision for name, kind in kinds.items()}


@pytest.mark.usefixtures("_restored")
@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has only the older settings")
@pytest.mark.parametrize(
    "before",
    [
        {"conv": "ieee", "rnn": "tf32", "matmul": "ieee"},
        {"conv": "tf32", "rnn": "tf32", "matmul": "tf32"},
        {"conv": "ieee", "rnn": "ieee", "matmul": "tf32"},
    ],
)
def test_a_caller_may_use_the_newer_settings(before: dict[str, str]) -> None:
    """torch refuses to read the older ones then, as they say something else."""
    torch.backends.cudnn.conv.fp32_precision = before["conv"]
    torch.backends.cudnn.rnn.fp32_precision = before["rnn"]
    torch.backends.cuda.matmul.fp32_precision = before["matmul"]
    with pytest.raises(RuntimeError):
        tf32()
    for _ in range(2):
        with full_fp32():
            assert set(newer().values()) == {"ieee"}
        assert newer() == before
    configure_process(torch.device("cuda"), deterministic=False)
    assert newer() == {"conv": "tf32", "rnn": "tf32", "matmul": "ieee"}
    assert tf32() == (True, False), "both kinds of settings say the same"


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_the_precision_of_products_is_as_it_was_after_scores(before: str) -> None:
    torch.set_float32_matmul_precision(before)
    with full_fp32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert tf32() == (False, False)
    assert torch.get_float32_matmul_precision() == before
    assert tf32() == (True, before != "highest")


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("verb", ["evaluate", "suites", "predict", "calibrate"])
def test_every_verb_on_a_model_is_without_tf32(
    verb: str, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = tmp_path / "model.safetensors", tmp_path / "image.png"
    backbone = mixskd.build_backbone("wrn_10_1", 3, 8)
    mixskd.save_model(
        backbone,
        model,
        classes=("a", "b", "c"),
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    Image.new("RGB", (8, 8)).save(image)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    seen: set[tuple[bool, bool]] = set()
    forward = StagedBackbone.forward

    def watched(self: StagedBackbone, x: torch.Tensor) -> torch.Tensor:
        seen.add(tf32())
        return forward(self, x)

    monkeypatch.setattr(StagedBackbone, "forward", watched)
    if verb == "evaluate":
        mixskd.evaluate(model, data=str(npz))
    elif verb == "suites":
        mixskd.run_suites([model], ["accuracy"], data=str(npz))
    elif verb == "predict":
        mixskd.predict(model, [image])
    else:
        with np.load(npz) as arrays:
            np.savez(npz, val_images=arrays["test_images"], val_labels=arrays["test_labels"], **arrays)
        mixskd.calibrate(model, data=str(npz), coverage=100)
    assert seen == {(False, False)}
    assert tf32() == (True, True)


def test_other_devices_are_refused_in_one_line() -> None:
    for name in ("mps", "meta"):
        with pytest.raises(UserError, match=f"device '{name}' is not supported"):
            choose_device(name)
    with pytest.raises(UserError, match="there is no device 'gpu'"):
        choose_device("gpu")
