"""The report is whole, asks for nothing, and takes no text for code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from mixskd import UserError, api
from mixskd.cli import main
from mixskd.evaluation.accuracy import Accuracy
from mixskd.evaluation.base import Context
from mixskd.evaluation.calibration import Calibration
from mixskd.evaluation.confidence import Confidence
from mixskd.evaluation.errors import Errors
from mixskd.evaluation.fgsm import Fgsm
from mixskd.evaluation.linearity import Linearity
from mixskd.report.evidence import MOST_POINTS, read_evidence, thinned
from mixskd.report.html import compose
from mixskd.text import to_json
from tests.report.test_tables import write_run

EVIL = "<script>alert(1)</script>"
SECTIONS = (
    "What was trained", "Results", "Learning curves", "Loss terms", "Cost and accuracy", "Reliability", "Robustness",
    "Linearity", "Confidence on mistakes", "Confusion", "Worst classes", "Most confident mistakes",
    "Differences in configuration", "Configurations",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_suites(run: Path) -> None:
    """What the suites say of an untrained classifier of three classes."""
    torch.manual_seed(0)
    images, labels = torch.randn(60, 3, 8, 8), torch.arange(60) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    paths = []
    for index in range(len(labels)):
        paths.append(str(run / f"{index}.png"))
        Image.new("RGB", (300, 200), (4 * index, 90, 20)).save(paths[-1])
    other = {"other $x_ & run": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}
    context = Context(torch.device("cpu"), classes=(EVIL, "$x_", "_cat"), paths=paths, others=other, name=EVIL)
    (run / "evaluation").mkdir()
    for suite in (Accuracy(), Calibration(), Fgsm(), Linearity(), Confidence(), Errors()):
        result = suite(model, [(images, labels)], context)
        (run / "evaluation" / f"{suite.name}.json").write_text(to_json(result))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of the baseline, and MixSKD under a hostile name."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, top1 in enumerate((70.0, 71.0)):
        write_run(folder, f"baseline-seed{seed}", (top1, top1), **{"method.name": "baseline", "run.seed": seed})
    write_run(folder, "a <b onclick=x> & b-seed0", (72.0, 72.5), **{"method.name": "mixskd"})
    rows = ["epoch,step,lr,train_loss,train_feature,test_top1"]
    rows += [f"{e},{e},0.1,{9 / e},{1 / e},{'' if e % 2 else e / 20}" for e in range(1, 1001)]
    (folder / "a <b onclick=x> & b-seed0" / "metrics.csv").write_text("\n".join(rows) + "\n")
    write_suites(folder / "a <b onclick=x> & b-seed0")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return api.report(folder, folder.parent / "report.html", figures=folder.parent / "figures")


def test_every_section_is_there_with_its_numbers(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert tuple(re.findall(r"<h2>(.*?)</h2>", page)) == SECTIONS
    assert "70.50 ± 0.71" in page
    assert page.count("data:image/jpeg;base64,") == 12
    assert len(page) < 1_500_000


def test_it_asks_for_nothing(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href|action|data)\s*=\s*"([^"]*)"', page)
    outside = {link for link in links if not link.startswith(("#", "data:image/"))}
    assert outside == {"https://arxiv.org/abs/2208.05768"}
    assert not re.findall(r"@import|url\((?!#|[\"']?#)|<link|<iframe", page)
    assert "default-src 'none'" in page


def test_text_of_users_is_no_code(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert EVIL not in page
    assert "<b onclick" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_figures_are_files_as_well(report: Path) -> None:
    figures = report.parent / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {path.stem for path in figures.glob("*.png")}
    wanted = {"cost", "curve_test_top1", "reliability", "fgsm", "linearity", "linearity_mass", "confidence_1_predicted"}
    assert wanted <= names
    with Image.open(figures / "fgsm.png") as image:
        assert image.width > 1000


def test_curves_keep_their_ends_and_few_points(folder: Path) -> None:
    run = next(run for run in read_evidence([folder]).runs if run.curves)
    loss, top1 = run.curves["train_loss"], run.curves["test_top1"]
    assert len(loss) == MOST_POINTS
    assert (loss[0], loss[-1]) == ((1, 9.0), (1000, 9 / 1000))
    assert all(epoch % 2 == 0 and value == epoch / 20 for epoch, value in top1)
    assert thinned([(1.0, 2.0)]) == [(1.0, 2.0)]


def test_without_suites_their_sections_are_left_out(folder: Path) -> None:
    sections, _ = compose(read_evidence([folder / "baseline-seed0"]))
    assert not {"Robustness", "Confusion", "Most confident mistakes"} & set(sections)


def test_fifty_runs_stay_small(folder: Path, tmp_path: Path) -> None:
    whole = folder / "a <b onclick=x> & b-seed0"
    for seed in range(50):
        run = tmp_path / "runs" / f"m-seed{seed}"
        shutil.copytree(whole, run, ignore=shutil.ignore_patterns("*.png"))
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(re.sub(r"(?m)^(  seed: ).*$", rf"\g<1>{seed}", config))
    assert api.report(tmp_path / "runs", tmp_path / "report.html").stat().st_size < 15_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "there is no folder nowhere"), (["."], "there is no finished run")],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_result_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "baseline-seed0", tmp_path / "run")
    (tmp_path / "run" / "evaluation").mkdir()
    (tmp_path / "run" / "evaluation" / "fgsm.json").write_text(json.dumps({"headline": None}))
    with pytest.raises(UserError, match=r"fgsm\.json is no result"):
        api.report(tmp_path / "run", tmp_path / "report.html")


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_and_sorts(report: Path, tmp_path: Path) -> None:
    click = "document.querySelectorAll('#results th button')[5].click();"
    page = report.read_text(encoding="utf-8").replace("</script></body>", f"{click}</script></body>")
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", clicked.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # an error, or a request that the policy refused
    results = re.search(r'<section id="results">.*?</table>', done.stdout, flags=re.DOTALL)
    assert results is not None
    assert 'aria-sort="ascending"><button type="button">top-1 (%)' in results[0]
    rows = re.findall(r"<tr>(<td.*?)</tr>", results[0], flags=re.DOTALL)
    assert [float(re.findall(r'data-value="([^"]*)"', row)[0]) for row in rows] == [70.5, 72.0]
