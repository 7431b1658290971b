"""Compare an ONNX file's probabilities, from the original images and without mixskd, with those of a CSV of predict.

python compare_onnx.py light.onnx predictions.csv
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["description"])
size, worst, labels, images = about["image_size"], 0.0, 0, 0
assert about["resize"]["rule"] == "stretch"
for row in csv.DictReader(Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()):
    image = Image.open(row["image"]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).transpose(2, 0, 1)[None]
    (p,) = session.run(None, {"images": pixels})[0]
    worst = max(worst, *(abs(float(row[name]) - value) for name, value in zip(about["classes"], p, strict=True)))
    named = [name for name, value, t in zip(about["classes"], p, about["thresholds"], strict=True) if value >= t]
    labels += ";".join(named) == row["labels"]
    images += 1
print(f"{images} images: the same labels on {labels}, probabilities differ by at most {worst:.2g}")
