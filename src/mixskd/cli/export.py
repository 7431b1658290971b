"""``mixskd export``. It imports no torch before it exports."""

import argparse
from pathlib import Path
from typing import get_args

from mixskd.cli.flags import add_run
from mixskd.deploy.exports.formats import SUFFIXES, Dtype, Input, Options, resolve
from mixskd.errors.terminal import show

SUMMARY = "Write the classifier for use without mixskd, and check the copy."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_run(p)
    p.add_argument("--to", choices=list(SUFFIXES), help="the format; by default the suffix of --out decides")
    p.add_argument("--out", help="the file to write (.safetensors, .pth, .onnx, .pt2); beside the model by default")
    p.add_argument("--overwrite", action="store_true", help="replace files that exist")
    p.add_argument("--data", help="the data set to check the copy on; the run's data by default")
    graphs = p.add_argument_group("graphs (.onnx, .pt2)")
    graphs.add_argument(
        "--input", choices=get_args(Input), default="float",
        help="images as float (normalised), unit (in [0, 1]) or uint8 (0 to 255); the graph normalises the last two",
    )  # fmt: skip
    graphs.add_argument("--softmax", action="store_true", help="give probabilities, not logits; of several labels too")
    graphs.add_argument(
        "--temperature", metavar="T",
        help="divide the logits by T before the softmax; stored takes the one in the model file",
    )  # fmt: skip
    graphs.add_argument("--dynamic-size", action="store_true", help="take images of any height and width")
    graphs.add_argument(
        "--dtype", choices=get_args(Dtype), default="fp32",
        help="the number type of an ONNX file's weights and arithmetic",
    )  # fmt: skip
    graphs.add_argument("--force", action="store_true", help="keep an fp16 or int8 file that names other classes")


def run(arguments: argparse.Namespace) -> None:
    """Write the classifier in a form that needs nothing of ours, and print where; the check goes to stderr."""
    options = Options(
        arguments.input, arguments.softmax, arguments.temperature, arguments.dynamic_size, arguments.dtype
    )
    options.check(resolve(arguments.to, arguments.out, Path(arguments.run))[0])  # before torch is imported
    from mixskd.deploy.exporting import export

    done = export(
        arguments.run, arguments.to, arguments.out, options=options, data=arguments.data,
        overwrite=arguments.overwrite, force=arguments.force,
    )  # fmt: skip
    show(done.file, *([] if done.beside is None else [done.beside]))
    show(done.verified or "a backbone without classifier: not checked", error=True)
