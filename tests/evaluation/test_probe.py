"""``mixskd probe``, and every verb on what it saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mixskd
from mixskd.backbones import build_backbone
from mixskd.cli.main import main
from mixskd.errors import UserError
from tests.deploy.photo_run import CLASSES, photos, tiny_is_known, write_photos


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_is_known():
        yield


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with a ``val`` split, and weights of ``tiny`` and of ``wrn_10_1``."""
    folder = tmp_path_factory.mktemp("probe")
    write_photos(folder / "photos")
    draw = np.random.default_rng(3)
    for file in photos(folder / "photos", "test"):
        target = folder / "photos" / "val" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(file)).astype(int) + draw.integers(-9, 10)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(target)
    for name in ("tiny", "wrn_10_1"):
        torch.manual_seed(0)
        save_file(dict(build_backbone(name, len(CLASSES)).export_state_dict()), folder / f"{name}.safetensors")
    return folder


def words(at: Path, out: Path, *more: str) -> list[str]:
    return ["probe", "--data", str(at / "photos"), "--backbone", "tiny", "--weights", str(at / "tiny.safetensors"),
            "--data.image-size", "72", "--data.workers", "0", "--out", str(out), *more]  # fmt: skip


@pytest.fixture(scope="module")
def probed(at: Path) -> Path:
    assert main(words(at, at / "out")) == 0
    return at / "out"


def test_the_table_names_classifiers_and_the_model(
    at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(at, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    for text in ("nearest neighbour", "class prototypes", "logistic regression, C", "% on val", "% on test"):
        assert text in said
    assert str(tmp_path / "out" / "model.safetensors") in said.replace("\n", "")


def test_rows_as_json(at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(at, tmp_path / "out", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["backbone"] for row in found["rows"]] == ["tiny"] * 3
    assert {row["chosen_by"] for row in found["rows"]} == {"val"}
    assert found["saved"] in found["rows"]


def test_several_backbones_are_compared_on_val(at: Path, tmp_path: Path) -> None:
    run = mixskd.train(
        data={"source": str(at / "photos"), "image_size": 72, "workers": 0}, backbone="tiny", method="baseline",
        out=str(tmp_path / "run"), run={"epochs": 1, "batch_size": 4, "progress": False},
    )  # fmt: skip
    found = mixskd.probe(
        str(at / "photos"), "tiny,tiny", weights=run["out"], out=tmp_path / "out",
        **{"data.image_size": 72, "data.workers": 0},
    )  # fmt: skip
    assert len(found["rows"]) == 6
    best = max(row["held_out"] for row in found["rows"] if row["classifier"] != "nearest neighbour")
    assert found["saved"]["held_out"] == best


def test_evaluate_gives_the_score_of_the_table(probed: Path) -> None:
    summary = json.loads((probed / "summary.json").read_text())
    for split in ("val", "test"):
        scores = mixskd.evaluate(probed, split=split)
        assert scores["top1"] == pytest.approx(summary["scores"][split]["top1"])
        assert scores["loss"] == pytest.approx(summary["scores"][split]["loss"], abs=1e-4)
    assert set(mixskd.run_suites([probed], ["accuracy", "calibration"])[probed.name]) == {"accuracy", "calibration"}


def test_calibrate_and_predict(at: Path, tmp_path: Path) -> None:
    assert main(words(at, tmp_path / "out")) == 0
    assert main(["calibrate", str(tmp_path / "out"), "--coverage", "90"]) == 0
    files = photos(at / "photos")
    named = [one["classes"][0]["name"] for one in mixskd.predict(tmp_path / "out", files)]
    right = 100 * np.mean([name == file.parent.name for name, file in zip(named, files, strict=True)])
    assert right == pytest.approx(mixskd.evaluate(tmp_path / "out", split="test")["top1"], abs=1e-3)


def test_export_and_report(probed: Path, tmp_path: Path) -> None:
    file = mixskd.export(probed, out=tmp_path / "weights.safetensors")
    assert load_file(file).keys() == build_backbone("tiny", len(CLASSES)).export_state_dict().keys()
    page = mixskd.report([probed], tmp_path / "report.html").read_text()
    assert "nothing was trained" in page


def test_features_belong_to_their_weights(at: Path, probed: Path) -> None:
    before, after = load_file(at / "tiny.safetensors"), load_file(probed / "model.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"fc.weight", "fc.bias"}


def test_a_folder_in_use_is_refused_and_kept(at: Path, probed: Path, tmp_path: Path) -> None:
    before = (probed / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="already holds a run; add --overwrite"):
        mixskd.probe(str(at / "photos"), "tiny", weights=str(at / "tiny.safetensors"), out=probed)
    assert (probed / "model.safetensors").read_bytes() == before
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="belong to no run"):
        mixskd.probe(str(at / "photos"), "tiny", weights=str(at / "tiny.safetensors"), out=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--optim.lr", "1"], "a probe has no setting optim.lr"),
        (["--weights", "none.safetensors"], "no weights at none.safetensors"),
        (["--backbone", ","], "no backbone is named"),
        (["--backbone", "tiny,tinny"], "did you mean 'tiny'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    at: Path, tmp_path: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(at, tmp_path / "out", *change)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out" / "config.yaml").exists()
