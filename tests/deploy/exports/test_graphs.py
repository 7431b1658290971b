"""From an image file to a probability with onnxruntime and torch.export, as ``predict`` gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import mixskd
from mixskd.cli.main import main
from mixskd.deploy.exporting import export
from mixskd.deploy.exports.formats import Options
from mixskd.deploy.exports.graph import CHECKED_LATER
from tests.deploy.photo_run import CLASSES, MEAN, STD, as_described, make_run, photos, predicted, softmax, tempered

KINDS = {
    "float": Options(),
    "unit": Options("unit", softmax=True),
    "uint8": Options("uint8", softmax=True, temperature=1.7, dynamic_size=True),
}
TOLERANCE = 1e-4  # of a probability in fp32


def from_onnx(file: Path, files: list[Path], kind: str) -> np.ndarray:
    """The first output for ``files``, in one batch."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["description"])
    images = np.concatenate([as_described(f, about, kind) for f in files])
    assert str(images.dtype) == about["input"]["dtype"]
    return session.run([about["output"]["name"]], {about["input"]["name"]: images})[0]


@pytest.fixture(scope="module")
def graphs(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An ONNX file of each kind of input."""
    folder = tmp_path_factory.mktemp("graphs")
    return {kind: export(small, out=folder / f"{kind}.onnx", options=o).file for kind, o in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_matches_predict(small: Path, graphs: dict[str, Path], kind: str) -> None:
    files = photos(small.parent / "photos")
    found, expected = from_onnx(graphs[kind], files, kind), predicted(small, files)
    if kind == "float":
        found = softmax(found)
    elif kind == "uint8":
        expected = tempered(expected, 1.7)
    assert np.abs(found - expected).max() < TOLERANCE
    alone = from_onnx(graphs[kind], files[:1], kind)
    assert np.abs((softmax(alone) if kind == "float" else alone) - expected[:1]).max() < TOLERANCE


def odd_photos(folder: Path) -> list[Path]:
    """Twenty photographs with sides of 5 to 400 pixels, up to 40 to 1."""
    draw, files = np.random.default_rng(3), []
    for i in range(20):
        long, share = int(draw.integers(40, 400)), draw.uniform(1, 40)
        sides = (long, max(5, int(long / share)))[:: 1 if i % 2 else -1]
        noise = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        files.append(folder / f"odd{i}.png")
        noise.resize(sides, Image.Resampling.BICUBIC).save(files[-1])
    return files


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_photographs_of_odd_shapes_are_read_alike_by_every_copy(small: Path, resize: str, tmp_path: Path) -> None:
    run, files = make_run(tmp_path, "tiny", 65, resize), odd_photos(tmp_path)
    expected = predicted(run, files)
    options = Options("uint8", softmax=True)
    graph, program = (export(run, out=tmp_path / name, options=options).file for name in ("w.onnx", "w.pt2"))
    about = description(graph)
    assert (about["resize"]["rule"], expected.std(0).min() > 0.01) == (resize, True)
    assert np.abs(from_onnx(graph, files, "uint8") - expected).max() < TOLERANCE
    images = torch.from_numpy(np.concatenate([as_described(f, about, "uint8") for f in files]))
    with torch.inference_mode():
        found = torch.export.load(program).module()(images).numpy()
    assert np.abs(found - expected).max() < TOLERANCE


def description(graph: Path) -> dict[str, Any]:
    return json.loads({p.key: p.value for p in onnx.load(graph).metadata_props}["description"])


def test_metadata_describe_input_and_output(graphs: dict[str, Path]) -> None:
    about = description(graphs["uint8"])
    assert (about["classes"], about["image_size"]) == (list(CLASSES), 72)
    assert (about["mean"], about["std"]) == (list(MEAN), list(STD))
    assert about["input"]["shape"] == ["batch", 3, "height", "width"]
    assert about["output"]["temperature"] == 1.7
    onnx.checker.check_model(onnx.load(graphs["uint8"]), full_check=True)


def test_dynamic_size_accepts_other_image_sizes(small: Path, graphs: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(str(graphs["uint8"]), providers=["CPUExecutionProvider"])
    pixels = torch.randint(0, 256, (3, 3, 88, 120), dtype=torch.uint8)
    (found,) = session.run(None, {"images": pixels.numpy()})
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        expected = (mixskd.load(small)((pixels / 255 - mean) / std) / 1.7).softmax(1)
    assert np.abs(found - expected.numpy()).max() < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_torch_export_program_matches_predict(small: Path, tmp_path: Path, kind: str) -> None:
    if KINDS[kind].dynamic_size and not CHECKED_LATER:
        pytest.skip("torch 2.8 makes no program with free sizes")
    done = export(small, out=tmp_path / "w.pt2", options=KINDS[kind])
    extra: dict[str, Any] = {"description.json": ""}
    with torch.inference_mode():
        module = torch.export.load(done.file, extra_files=extra).module()
        about = json.loads(extra["description.json"])
        files = photos(small.parent / "photos")
        images = torch.from_numpy(np.concatenate([as_described(f, about, kind) for f in files]))
        found, expected = module(images).numpy(), predicted(small, files)
    if kind == "float":
        found = softmax(found)
    elif kind == "uint8":
        expected = tempered(expected, 1.7)
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 5e-3), ("int8", 0.1)])
def test_fp16_and_int8_are_close(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str, tolerance: float
) -> None:
    file = tmp_path / "w.onnx"
    assert main(["export", str(small), "--out", str(file), "--dtype", dtype, "--input", "uint8", "--softmax"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{file}\n"
    assert "checked on 12 images of the split test: same top-1 on 12 of 12, probabilities differ by" in printed.err
    files = photos(small.parent / "photos")
    found, expected = from_onnx(file, files, "uint8"), predicted(small, files)
    assert 0 < np.abs(found - expected).max() < tolerance
    graph = onnx.load(file).graph
    if dtype == "fp16":
        kinds = {w.data_type for w in graph.initializer if len(w.dims) == 4}
        assert onnx.TensorProto.FLOAT16 in kinds
    else:
        assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
