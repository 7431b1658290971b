"""``python without_mixskd.py GRAPH FILE ...``: probabilities of image files by ONNX Runtime, as JSON.

It imports nothing of mixskd: only the description in the graph says how a file becomes the input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
import tifffile
from PIL import Image


def as_input(file: str, about: dict[str, Any]) -> np.ndarray:
    """``1 x C x size x size`` by the rule ``squash``."""
    size, channels, (low, high) = about["image_size"], about["channels"], about["range"]
    kind = about["input"]["dtype"]
    if file.endswith(".tif"):
        planes = [*np.moveaxis(tifffile.imread(file).astype(np.float32), -1, 0)]
        images = [Image.fromarray((plane - low) / (high - low)) for plane in planes]
    else:
        images = [Image.open(file).convert("L")]
    resized = [np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images]
    assert len(resized) == channels == about["input"]["shape"][1]
    assert about["resize"]["rule"] == "squash"
    return np.stack(resized)[None].astype(kind)


def main(graph: str, *files: str) -> None:
    """Print one list of probabilities for each file."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["description"])
    rows = [session.run(None, {"images": as_input(file, about)})[0][0].tolist() for file in files]
    assert not any(name.startswith(("mixskd", "torch")) for name in sys.modules)
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
