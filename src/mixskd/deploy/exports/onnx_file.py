"""``.onnx``: the graph for ONNX Runtime and its like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixskd.deploy.exports.description import KEY, as_text, describe, output_name
from mixskd.deploy.exports.graph import Deployed, as_input, example, free_sizes, no_graph, quiet
from mixskd.deploy.exports.job import Answer, Job, Written
from mixskd.deploy.exports.onnx_types import CONVERTERS
from mixskd.runtime.packages import needed


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
    return Written(run_by_onnxruntime(job.target))


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


def run_by_onnxruntime(file: Path) -> Answer:
    """The graph in ``file`` on the processor, from images to its first output."""
    runtime = needed("onnxruntime", "onnx")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

    return answer
