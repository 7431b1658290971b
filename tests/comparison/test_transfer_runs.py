"""Chains: backbones of several methods carried into detection or segmentation, in one grid with one table."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

import mixskd
from mixskd import api
from mixskd.backbones import BACKBONES
from mixskd.cli.main import main
from mixskd.comparison.comparison import grid_yaml, run_grid, tabulate
from mixskd.comparison.grid import default_values, grid_from
from mixskd.comparison.launchers import LAUNCHERS
from mixskd.comparison.plan import plan
from mixskd.comparison.worker import carry_out
from mixskd.config import grids, read_yaml
from mixskd.config.registry import NETWORKS
from mixskd.config.task_kinds import DETECTION, KINDS, SEGMENTATION
from mixskd.errors import UserError
from tests.transfer.detection.support import tiny_backbone
from tests.transfer.detection.support import write as write_boxes
from tests.transfer.segmentation.support import write as write_masks

NETWORK = {
    "detection": {
        "name": "cascade_rcnn", "channels": 8, "hidden": 16, "rois": 8, "proposals": 20, "short": [64], "long": 64,
    },
    "segmentation": {"name": "deeplabv3", "head": "torchvision", "crop": 32, "output_stride": 16},
}  # fmt: skip
RUN = {"epochs": 1, "batch_size": 4, "progress": False, "precision": "fp32"}


class Here:
    """A launcher that carries out each run at once, in this process, where the tests' backbone is known."""

    def __init__(self, folder: Path, jobs: int | None, devices: str, options: Mapping[str, Any]) -> None:
        self.slots = 1

    def submit(self, folder: Path, name: str) -> Future[int]:
        done: Future[int] = Future()
        done.set_result(carry_out(folder, name))
        return done

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", lambda classes: tiny_backbone(classes=classes))
    monkeypatch.setitem(LAUNCHERS, "here", Here)


def values(root: Path, kind: str, **more: Any) -> dict[str, Any]:
    """A grid of two methods on eight photographs, carried into the four images of a ``kind``."""
    data, images = root / kind, root / "photos"
    if not data.exists():
        (write_boxes if kind == "detection" else write_masks)(data)
    for index in range(8):
        for split in ("train", "test"):
            folder = images / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (30 * index, 90, 255 - 90 * (index % 2))).save(folder / f"{index}.png")
    transfer = {
        "method": NETWORK[kind], "data": {"source": str(data), "workers": 0}, "run": RUN, "scratch": True,
        "optim": {"lr": 0.02, "schedule": "poly", "warmup_epochs": 0, "nesterov": False},
    }  # fmt: skip
    return {
        "methods": ["baseline", "again=baseline[optim.lr=0.01]"], "backbones": ["tiny"], "seeds": [0, 1],
        "data": {"source": str(images), "image_size": 64, "workers": 0}, "run": RUN, "paper_table": "Table 3",
        "transfer": {**transfer, **more.pop("transfer", {})}, **more,
    }  # fmt: skip


def run(root: Path, kind: str, **more: Any) -> list[dict[str, Any]]:
    given = values(root, kind, **more)
    grid = {key: given.pop(key) for key in ("methods", "backbones", "seeds", "transfer")}
    del given["paper_table"]
    done = mixskd.compare(**grid, **given, out=str(root / "grid"), launcher="here", progress=False)
    assert not done.failures
    return done.rows


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tasks in one folder: the second grid takes the backbones that the first has trained."""
    root = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", lambda classes: tiny_backbone(classes=classes))
        patch.setitem(LAUNCHERS, "here", Here)
        rows = run(root, "detection")
        assert [row.get("pre-trained by") for row in rows] == [None, None, "nothing", "baseline", "again"]
        trained = (root / "grid" / "baseline-tiny-seed0" / "model.safetensors").stat().st_mtime_ns
        run(root, "segmentation", seeds=[0], transfer={"seeds": [0, 1], "scratch": False})
        assert (root / "grid" / "baseline-tiny-seed0" / "model.safetensors").stat().st_mtime_ns == trained
    return root


def test_each_network_starts_from_its_backbone(root: Path) -> None:
    folder = root / "grid"
    backbone = load_file(folder / "again-tiny-seed1" / "model.safetensors")
    detector = load_file(folder / "again_cascade_rcnn_detection-tiny-seed1" / "model.safetensors")
    frozen = [key for key in backbone if key.startswith("layer1.") and key.endswith("conv1.weight")]
    assert frozen
    for key in frozen:  # what is not trained is still there
        assert any(value.shape == backbone[key].shape and value.equal(backbone[key]) for value in detector.values())
    config = read_yaml(folder / "scratch_cascade_rcnn_detection-tiny-seed1" / "config.yaml")
    assert config["weights"] is None


def test_transfer_table_has_the_accuracy_of_each_backbone(root: Path) -> None:
    folder = root / "grid"
    top1 = {row["method"]: row["top-1 (%)"] for row in read(folder / "table.csv")}
    rows = read(folder / "detection.csv")
    assert [(row["pre-trained by"], row["seeds"]) for row in rows] == [
        ("nothing", "0, 1"), ("baseline", "0, 1"), ("again", "0, 1"),
    ]  # fmt: skip
    assert [row["top-1 (%)"] for row in rows] == ["", top1["baseline"], top1["again"]]
    runs = read(folder / "detection_runs.csv")
    own = [float(run["AP (%)"]) for run in runs if run["pre-trained by"] == "again"]
    summaries = [
        json.loads((folder / f"again_cascade_rcnn_detection-tiny-seed{seed}" / "summary.json").read_text())
        for seed in (0, 1)
    ]
    assert own == [summary["scores"]["val"]["ap"] for summary in summaries]
    assert float(rows[2]["AP (%)"]) == pytest.approx(sum(own) / 2)
    text = (folder / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Classification", "## Detection", "## Segmentation",
    ]  # fmt: skip


def test_every_backbone_goes_with_every_seed_of_the_transfer(root: Path) -> None:
    rows = read(root / "grid" / "segmentation.csv")
    assert [(row["pre-trained by"], row["seeds"], row["runs"]) for row in rows] == [
        ("baseline", "0, 1", "2"), ("again", "0, 1", "2"),
    ]  # fmt: skip
    assert (root / "grid" / "again_deeplabv3_segmentation-tiny-from0-seed1" / "summary.json").exists()


def test_papers_values_are_a_column_of_transfer_tables(root: Path) -> None:
    rows = tabulate(root / "grid")  # of the grid that ran last, which asked for no table
    assert "Table 3: AP on coco, resnet50 (%)" not in rows[-1]
    grid = root / "grid" / "grid.yaml"
    text = grid.read_text()
    grid.write_text(f"{text}paper_table: Table 3\n")
    rows = tabulate(root / "grid")
    grid.write_text(text)
    found = [row.get("Table 3: AP on coco, resnet50 (%)") for row in rows if row.get("network") == "cascade_rcnn"]
    assert found == [None, 41.0, 41.0]  # by the method, whatever it is called here
    found = [row.get("Table 3: mIoU on voc, resnet50 (%)") for row in rows if row.get("network") == "deeplabv3"]
    assert found == [77.09, 77.09]


def test_the_report_shows_annotation_beside_prediction(root: Path) -> None:
    page = api.report(root / "grid", root / "report.html").read_text(encoding="utf-8")
    for heading in ("Results", "Detection", "Segmentation", "What the networks find"):
        assert f"<h2>{heading}</h2>" in page
    section = page.split("<h2>What the networks find</h2>")[1].split("</section>")[0]
    assert section.count("annotated</figcaption>") == section.count("found</figcaption>") == 5 * 4
    assert section.count("data:image/jpeg;base64,") == 2 * 5 * 4
    # Without weights there is nothing to show, and the tables stay.
    for model in (root / "grid").glob("*/model.safetensors"):
        model.rename(model.with_suffix(".kept"))
    page = api.report(root / "grid", root / "report.html").read_text(encoding="utf-8")
    for model in (root / "grid").glob("*/model.kept"):
        model.rename(model.with_suffix(".safetensors"))
    assert "What the networks find" not in page
    assert "<h2>Detection</h2>" in page


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_grid_examines_its_transfer_data_before_any_training(kind: str, tmp_path: Path) -> None:
    given = values(tmp_path, kind)
    damaged = sorted((tmp_path / kind).rglob("*.json"))[0]
    damaged.write_text("{")
    with pytest.raises(UserError, match=damaged.name):
        run_grid(grid_from(given), tmp_path / "grid", launcher="here", launcher_options={}, progress=False)
    assert not list((tmp_path / "grid").rglob("*.pt"))


def test_kinds_name_all_networks() -> None:
    assert (*DETECTION.networks, *SEGMENTATION.networks) == tuple(NETWORKS)


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ("coco", "transfer must hold settings such as recipe and data"),
        ({"data": "x"}, "transfer.method.name must be one of cascade_rcnn, faster_rcnn, deeplabv3, not None"),
        ({"method": "mixup"}, "not 'mixup'; give transfer a recipe (detect_coco, segment_voc) or a method.name"),
        ({"recipe": "detect_coco", "sources": "x"}, "unknown key 'transfer.sources' in the grid"),
        ({"recipe": "detect_coco", "run": 3}, "transfer.run must hold keys, not 3"),
        ({"recipe": "detect_coco", "seeds": "a"}, "transfer.seeds"),
        ({"recipe": "detect_coco", "data": {"sauce": "x"}}, "data.sauce"),
    ],
)
def test_mistake_in_a_transfer_gives_one_line(transfer: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        plan(grid_from({**default_values(), "backbones": ["resnet18"], "transfer": transfer}), tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["table3_detection", "table3_segmentation"])
def test_papers_transfer_grids_are_one_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "imagenet", "--grid", name, "--seeds", "0", "--transfer.data.source", "cells", "--dry-run"]
    assert main([*words, "--out", str(tmp_path / "x")]) == 0
    lines = capsys.readouterr().out.splitlines()
    network = {kind.recipe: kind for kind in KINDS}[grids.load(name)["transfer"]["recipe"]].networks[0]
    assert len(lines) == 12
    assert f"mixskd_{network}_cells-resnet50-seed0: to run, after mixskd-resnet50-seed0" in lines


def test_transfer_grid_reads_back_equal(tmp_path: Path) -> None:
    grid = grid_from(values(tmp_path, "segmentation", transfer={"seeds": [0, 1, 2]}))
    (tmp_path / "grid.yaml").write_text(grid_yaml(grid))
    assert grid_from(read_yaml(tmp_path / "grid.yaml")) == grid
