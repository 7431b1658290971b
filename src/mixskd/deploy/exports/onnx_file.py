"""``.onnx``: the graph for ONNX Runtime and its like, in fp32, fp16 or int8."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixskd.deploy.exports.description import KEY, as_text, describe, output_name
from mixskd.deploy.exports.graph import Deployed, as_input, example, free_sizes, no_graph, quiet
from mixskd.deploy.exports.job import Job, Written
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


def onnx(job: Job) -> Written:
    """The graph, from ``images`` to ``logits`` or ``probabilities``, with the description in its metadata."""
    check_packages()
    module = Deployed(job.model, job.options, job.temperature).eval()
    free = free_sizes(job)
    ranges = job.training_images() if job.options.dtype == "int8" else None  # before a minute of work
    try:
        graph = traced(module, example(job), free, output_name(job.options))
    except Exception as error:  # torch has many for what it cannot trace
        raise no_graph(job, error) from None
    if job.options.dtype != "fp32":
        given = None if ranges is None else as_input(ranges, job.model, job.options)
        graph = CONVERTERS[job.options.dtype](graph, given)
    about = describe(job.model, job.options, job.temperature)
    package = needed("onnx", "onnx")
    package.helper.set_model_props(graph, {KEY: as_text(about)})
    package.save(graph, job.target)
    run = run_by_onnxruntime(job.target)
    return Written(lambda images: run(images)[0])


def check_packages() -> None:
    """Raises UserError if a package for writing or checking ONNX files is missing or broken."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, "onnx")


def traced(module: nn.Module, images: Tensor, free: dict[int, Any], output: str) -> Any:
    """``module`` as an ONNX ``ModelProto`` from ``images`` to ``output``; the axes in ``free`` are dynamic."""
    with quiet():
        program = torch.onnx.export(
            module, (images,), dynamo=True, verbose=False, input_names=["images"], output_names=[output],
            dynamic_shapes=(free,),
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def run_by_onnxruntime(file: Path) -> Callable[[Tensor], list[Tensor]]:
    """The graph in ``file`` on the processor, from images to its outputs."""
    runtime = needed("onnxruntime", "onnx")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: [torch.from_numpy(x) for x in session.run(None, {name: images.contiguous().numpy()})]
