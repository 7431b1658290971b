import platform

import pytest
import torch

from mixskd.errors import UserError
from mixskd.precision import choose_precision, device_name

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        ({"cpu_name": "AMD EPYC", "avx2": True, "avx512_bf16": True, "sse": True}, "AMD EPYC (avx512_bf16, avx2)"),
        ({"cpu_name": "AMD EPYC", "avx2": False}, "AMD EPYC"),
        ({"avx2": True}, "arm64 (avx2)"),
    ],
)
def test_a_processor_by_its_name(capabilities: dict[str, object], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert device_name(CPU) == name


def test_amx_multiplies_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", CPU) == "bf16"


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="fp16 with loss scaling needs a GPU"):
        choose_precision("fp16", CPU)
