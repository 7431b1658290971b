"""Which format and file a command asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixskd.deploy.exports.formats import BY_SUFFIX, SUFFIXES, Options, beside, resolve
from mixskd.errors import UserError

HERE = Path("runs/photos")


@pytest.mark.parametrize(
    ("to", "out", "expected"),
    [
        (None, "a/w.pth", ("pth", Path("a/w.pth"))),
        (None, "w.pt", ("pth", Path("w.pt"))),
        (None, "w.PT2", ("pt2", Path("w.PT2"))),
        (None, "w.safetensors", ("safetensors", Path("w.safetensors"))),
        (None, "w.onnx", ("onnx", Path("w.onnx"))),
        ("onnx", None, ("onnx", HERE / "model.onnx")),
        ("timm", None, ("timm", HERE / "timm" / "model.safetensors")),
        ("timm", "mine", ("timm", Path("mine/model.safetensors"))),
        ("timm", "mine/w.pth", ("timm", Path("mine/w.pth"))),
        ("torchvision", "w.pt", ("torchvision", Path("w.pt"))),
        ("detectron2", "w.pth", ("detectron2", Path("w.pth"))),
    ],
)
def test_format_follows_from_the_suffix(to: str | None, out: str | None, expected: tuple[str, Path]) -> None:
    assert resolve(to, out, HERE) == expected


@pytest.mark.parametrize("to", SUFFIXES)
def test_every_format_takes_its_suffixes_and_no_other(to: str) -> None:
    for suffix in {*BY_SUFFIX, ".bin"}:
        if suffix in SUFFIXES[to]:
            assert resolve(to, f"w{suffix}", HERE)[0] == to
        else:
            with pytest.raises(UserError, match=f"--to {to} writes"):
                resolve(to, f"w{suffix}", HERE)


def test_description_file_is_written_where_the_format_has_none() -> None:
    assert beside("pth", Path("a/w.pth")) == Path("a/w.pth.json")
    assert beside("timm", Path("a/w.pth")) == Path("a/config.json")
    assert beside("onnx", Path("a/w.onnx")) is None


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_graphs_take_every_option(to: str) -> None:
    Options("uint8", True, 1.5, True).check(to)
    Options("unit", True, "stored").check(to)
    assert Options("unit", True, "1.5") == Options("unit", True, 1.5)
    with pytest.raises(UserError, match="a number above 0, or stored, not 'warm'"):
        Options("unit", True, "warm").check(to)


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"input": "uint8"}, "--input"), ({"softmax": True}, "--softmax"), ({"dynamic_size": True}, "--dynamic-size")],
)
@pytest.mark.parametrize("to", [to for to in SUFFIXES if to not in ("onnx", "pt2")])
def test_formats_of_weights_accept_no_graph_option(to: str, options: dict, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag} is for graphs"):
        Options(**options).check(to)
