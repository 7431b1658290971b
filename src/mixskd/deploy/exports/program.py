"""``.pt2``: the program of torch.export, which PyTorch loads without the code of the network."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch

from mixskd.deploy.exports.description import KEY, as_text, describe
from mixskd.deploy.exports.graph import Deployed, example, free_sizes, no_graph
from mixskd.deploy.exports.job import Job, Written

# Conditions on a dynamic height are then checked at run time, not proven at export. torch has this from 2.9 on.
CHECKED_LATER: dict[str, Any] = {
    name: True
    for name in inspect.signature(torch.export.export).parameters
    if name == "prefer_deferred_runtime_asserts_over_guards"
}


def pt2(job: Job) -> Written:
    """The program, with the description as its extra file ``description.json``."""
    module = Deployed(job.model, job.options, job.temperature).eval()
    free = free_sizes(job)
    try:
        program = torch.export.export(module, (example(job),), dynamic_shapes=(free,), **CHECKED_LATER)
    except Exception as error:  # torch has many for what it cannot trace
        raise no_graph(job, error) from None
    about = as_text(describe(job.model, job.options, job.temperature))
    with job.target.open("wb") as file:
        torch.export.save(program, file, extra_files={f"{KEY}.json": about})
    with job.target.open("rb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch 2.11 reads its own file so
        return Written(torch.export.load(file).module())
