"""Grey images and images of six channels of 16 bits: trained, exported, and read again without mixskd."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixskd
from mixskd.deploy.exporting import export
from mixskd.deploy.exports.formats import Options
from mixskd.errors import UserError
from tests.data.test_channels import folder
from tests.deploy.exports import without_mixskd


@pytest.mark.parametrize("channels", [1, 6])
def test_probabilities_from_the_original_files_are_equal_without_mixskd(channels: int, tmp_path: Path) -> None:
    place, run = folder(tmp_path / "data", channels), tmp_path / "run"
    data: dict[str, Any] = {"source": str(place), "image_size": 8, "channels": channels, "workers": 0}
    if channels == 6:
        data["range"] = [0, 5095]
    mixskd.train(
        data=data, backbone="wrn_10_1", method="mixskd", out=str(run),
        run={"epochs": 2, "batch_size": 4, "progress": False},
    )  # fmt: skip
    model, files = mixskd.load(run), sorted(map(str, place.rglob("*.*")))
    assert (model.in_channels, len(model.mean), model.preprocess.range) == (
        channels, channels, None if channels == 1 else (0, 5095),
    )  # fmt: skip
    kind = "uint8" if channels == 1 else "unit"
    graph = export(run, out=tmp_path / "m.onnx", options=Options(kind, softmax=True)).file  # type: ignore[arg-type]
    command = [sys.executable, without_mixskd.__file__, str(graph), *files]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = [{c["name"]: c["probability"] for c in one["classes"]} for one in mixskd.predict(run, files)]
    expected = [[row[name] for name in model.classes] for row in rows]
    assert np.abs(np.array(found) - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 1e-3
    if channels == 6:
        with pytest.raises(UserError, match="--input uint8 is for images of 8 bits"):
            export(run, out=tmp_path / "n.onnx", options=Options("uint8"))
