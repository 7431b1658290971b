"""ONNX graphs in 16-bit floating point and in 8-bit integers, by ONNX Runtime's own converters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mixskd.deploy.exports.graph import quiet
from mixskd.runtime.packages import needed

BATCH = 16


def fp16(graph: Any, images: Tensor | None = None) -> Any:
    """``graph`` (fp32) with weights and arithmetic in fp16; input and output keep their types."""
    converter = needed("onnxruntime.transformers.float16", "onnx")
    with quiet():
        return converter.convert_float_to_float16(graph, keep_io_types=True)


def int8(graph: Any, images: Tensor | None) -> Any:
    """``graph`` (fp32) with 8-bit weights and maps, with ranges measured on ``images``, which are input of the graph.

    Static quantisation, since convolutions gain by it alone: the dynamic kind finds the range of every map anew at each
    call, and has fast kernels for matrix products only. Weights have a scale a channel and 7 bits of range, without
    which processors without VNNI overflow in a sum; maps are unsigned.
    """
    assert images is not None
    quantisation = needed("onnxruntime.quantization", "onnx")
    prepare = needed("onnxruntime.quantization.shape_inference", "onnx").quant_pre_process
    package = needed("onnx", "onnx")
    with tempfile.TemporaryDirectory() as folder, quiet():
        given, prepared, out = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "out"))
        package.save(graph, given)
        prepare(str(given), str(prepared), skip_symbolic_shape=True)
        quantisation.quantize_static(
            str(prepared), str(out), reader(images), quant_format=quantisation.QuantFormat.QDQ, per_channel=True,
            reduce_range=True, activation_type=quantisation.QuantType.QUInt8, weight_type=quantisation.QuantType.QInt8,
        )  # fmt: skip
        return package.load(out)


def reader(images: Tensor) -> Any:
    """``images`` in batches, as a data reader of ONNX Runtime's calibration."""
    base: Any = needed("onnxruntime.quantization", "onnx").CalibrationDataReader

    class Images(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(images.split(BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    return Images()


CONVERTERS: dict[str, Callable[[Any, Tensor | None], Any]] = {"fp16": fp16, "int8": int8}
