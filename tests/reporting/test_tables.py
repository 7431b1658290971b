"""The numbers of the tables against numpy and against counts by hand, and their three forms."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixskd import build_backbone
from mixskd.benchmarking.cost import classes_from, count_cost, images_forwarded
from mixskd.comparison.comparison import tabulate
from mixskd.config import to_yaml
from mixskd.config.build import build_experiment
from mixskd.config.merging import merge
from mixskd.errors import UserError
from mixskd.methods import METHODS
from mixskd.reporting.published.classification import _rows, published, published_fgsm
from mixskd.reporting.tables.cells import Number, Spread, comma_separated, escape, latex, markdown
from tests.artifacts.test_stored_files import RESULTS
from tests.methods.support import options_of


def write_run(folder: Path, name: str, top1: tuple[float, float], **settings: Any) -> None:
    """A finished run of CIFAR-100 with last and best top-1, as the trainer leaves it."""
    run = folder / name
    run.mkdir(parents=True)
    values = {"backbone": "wrn_16_2", "data.source": "cifar100.npz", "run.epochs": 30, **settings}
    experiment = build_experiment({**merge(values), "out": str(run)})
    (run / "config.yaml").write_text(to_yaml(experiment))
    summary = {
        "last": {"epoch": 30, "top1": top1[0]}, "best_on_test": {"epoch": 24, "top1": top1[1]},
        "updates": 300, "images": 19200, "seconds": 60.0, "images_per_second": 320.0, "device": "cpu",
        "precision": "bf16", "threads": 1, "parameters": 703284,
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))


ACCURACIES = {0: (70.1, 70.4), 1: (71.3, 71.3), 2: (69.65, 70.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed, top1 in ACCURACIES.items():
        write_run(folder, f"baseline-seed{seed}", top1, **{"method.name": "baseline", "run.seed": seed})
    options = {"method.name": "mixskd", "method.mix": "cutmix", "data.per_class": 100}
    write_run(folder, "mixskd_cutmix-seed0", (72.0, 72.5), **options)
    tabulate(folder)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_means_and_sample_deviations_match_numpy(folder: Path) -> None:
    baseline, cut = read(folder / "table.csv")
    for column, place in (("top-1 (%)", 0), ("best epoch (%)", 1)):
        values = np.array([top1[place] for top1 in ACCURACIES.values()])
        assert float(baseline[column]) == pytest.approx(values.mean(), abs=1e-12)
        assert float(baseline[f"{column} std"]) == pytest.approx(values.std(ddof=1), abs=1e-12)
    assert baseline["seeds"] == "0, 1, 2"
    assert (cut["method"], cut["top-1 (%)"], cut["top-1 (%) std"]) == ("mixskd_cutmix", "72.0", "")


def test_one_row_has_scores_of_one_split(tmp_path: Path) -> None:
    """The weights of the best epoch on val are scored on test: 50 % on val is not shown beside 45 % on test."""
    write_run(tmp_path, "mixup-seed0", (45.0, 50.0), **{"method.name": "mixup"})
    path = tmp_path / "mixup-seed0" / "summary.json"
    summary = json.loads(path.read_text()) | {
        "scores": {"val": {"top1": 50.0}, "test": {"top1": 45.0}},
        "best": {"epoch": 24, "split": "val", "top1": 50.0}, "deployed": {"epoch": 24, "selected_on": "val"},
    }  # fmt: skip
    path.write_text(json.dumps(summary))
    tabulate(tmp_path)
    (row,), (single,) = read(tmp_path / "table.csv"), read(tmp_path / "runs.csv")
    assert (row["split"], row["top-1 (%)"], row["best epoch (%)"]) == ("test", "45.0", "")
    assert (single["top-1 (%)"], single["best epoch (%)"], single["best epoch chosen on"]) == ("45.0", "", "val")
    assert "50.0" not in (tmp_path / "table.md").read_text()


def test_table_names_settings_that_are_not_those_of_most(tmp_path: Path) -> None:
    for name, batch in (("baseline", 128), ("mixup", 128), ("mixskd", 64)):
        write_run(tmp_path, f"{name}-seed0", (70.0, 71.0), **{"method.name": name, "run.batch_size": batch})
    tabulate(tmp_path)
    other = {row["method"]: row["other settings"] for row in read(tmp_path / "table.csv")}
    assert other == {"baseline": "", "mixup": "", "mixskd": "run.batch_size 64"}


def test_published_value_is_beside_ours(folder: Path) -> None:
    baseline, cut = read(folder / "table.csv")
    assert (baseline["published (%)"], baseline["published (%) std"]) == ("72.24", "0.29")
    assert cut["published (%)"] == ""  # the paper has no CutMix in MixSKD
    text = (folder / "table.md").read_text()
    assert "| baseline | wrn_16_2 | none | 0, 1, 2 | test | 70.35 ± 0.85 | 70.57 ± 0.67 | 72.24 ± 0.29 |" in text
    assert "Published: Table 1." in text
    assert "30 epochs instead of 205" in text
    assert "100 images a class" not in text


def test_costs_and_budgets(folder: Path) -> None:
    baseline, cut = read(folder / "table.csv")
    assert (baseline["parameters"], cut["parameters"]) == ("703284", "703284")
    assert int(cut["in training"]) == 1_973_536 + 3 * 16_641  # METHODS of the paper's appendix, and the discriminators
    assert (baseline["images forwarded"], cut["images forwarded"]) == ("19200.0", "38400.0")
    assert [row["updates"] for row in read(folder / "runs.csv")] == ["300"] * 4
    assert {row["seed"]: row["best epoch"] for row in read(folder / "runs.csv")} == {"0": "24", "1": "24", "2": "24"}


def test_settings_with_one_label_get_distinct_names(tmp_path: Path) -> None:
    for seed, epochs in ((0, 30), (1, 30), (2, 60)):
        settings = {"method.name": "mixup", "run.seed": seed, "run.epochs": epochs}
        write_run(tmp_path, f"mixup-seed{seed}", (70.0 + seed, 71.0), **settings)
    rows = {row["method"]: row["seeds"] for row in tabulate(tmp_path)}
    assert rows == {"mixup (run.epochs 30)": "0, 1", "mixup (run.epochs 60)": "2"}


def test_every_published_value_is_found_by_its_experiment() -> None:
    for row in (row for row in _rows() if "top1" in row):  # Table 5 has others
        experiment = build_experiment(
            {
                "backbone": row["backbone"], "method": {"name": row["method"], **row.get("options", {})},
                "data": {"source": row["data"], "augment": row["augment"]},
            }
        )  # fmt: skip
        value = published(experiment)
        assert value is not None
        assert value.top1 == row["top1"]
    experiment = build_experiment({"backbone": "cifar_resnet18", "method": "mixskd", "data": "cifar100"})
    assert published(experiment).top1 == 80.32  # type: ignore[union-attr]
    assert published(dataclasses.replace(experiment, weights="pretrained")) is None


def test_markdown_and_latex_escape_special_characters() -> None:
    table = [{"method": r"a_b|50% & #1 ~^\{x}", "n (%)": Number(1234.5, 1), "top-1": Spread(70.0, 0.5), "p": None}]
    assert markdown(table).splitlines()[-1] == r"| a_b\|50% & #1 ~^\{x} | 1,234.5 | 70.00 ± 0.50 | - |"
    body = latex(table)
    assert r"a\_b|50\% \& \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}\{x\} & 1234.5" in body
    assert r"$70.00 \pm 0.50$ & - \\" in body
    assert r"method & n (\%) & top-1" in body
    assert escape("$") == r"\$"
    assert (
        comma_separated([{"x": 'a,"b"', "y": Number(0.1 + 0.2, 1)}]).splitlines()[1] == '"a,""b""",0.30000000000000004'
    )


def experiment(method: str, backbone: str = "wrn_10_1", **options: Any) -> Any:
    return build_experiment({"backbone": backbone, "method": {"name": method, **options}, "out": "x"})


def conv_flops(backbone: str, size: int, classes: int) -> int:
    """Twice the multiplications of every convolution and of the classifier, by hand, from a real forward pass."""
    model, total = build_backbone(backbone, classes), 0

    def count(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            per_output = module.weight[0].numel()
            total += 2 * per_output * output.numel()
        elif isinstance(module, torch.nn.Linear):
            total += 2 * module.weight.numel()

    for module in model.modules():
        module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, size, size))
    return total


@pytest.mark.parametrize(("backbone", "size"), [("wrn_10_1", 16), ("resnet18", 64)])
def test_flops_at_inference_are_those_of_the_convolutions(backbone: str, size: int) -> None:
    cost = count_cost(experiment("baseline", backbone), 7, size)
    assert cost.inference_flops == conv_flops(backbone, size, 7)
    # Backward twice the forward, less the gradient of the images.
    assert 2.5 * cost.inference_flops < cost.training_flops < 3 * cost.inference_flops
    assert cost.training_parameters == cost.inference_parameters


FORWARDED = {"mixskd": 2, "ddgsd": 2, "cskd": 2, "cskd_mixup": 2, "bake": 4, "augmix_jsd": 3, "regmixup": 2, "dlb": 2}


@pytest.mark.parametrize("method", METHODS)
def test_images_forwarded_for_an_original(method: str) -> None:
    assert images_forwarded(experiment(method, **options_of(method))) == FORWARDED.get(method, 1)


def test_images_forwarded_follow_the_options() -> None:
    assert images_forwarded(experiment("bake", partners=1)) == 2
    assert images_forwarded(experiment("mixskd", separate_bn=True)) == 2


def test_partner_without_gradient_costs_one_forward_pass() -> None:
    plain, partner = (count_cost(experiment(name), 10, 16) for name in ("baseline", "cskd"))
    assert partner.training_flops == pytest.approx(plain.training_flops + plain.inference_flops)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classes_from_parameters(classes: int) -> None:
    parameters = sum(p.numel() for p in build_backbone("wrn_10_1", classes).parameters())
    assert classes_from(parameters, experiment("baseline")) == classes


def test_values_of_a_papers_table_are_a_column(tmp_path: Path) -> None:
    options = {"method.name": "mixskd", "method.mu": 0}
    write_run(tmp_path, "some-wrn_16_2-seed0", (72.0, 72.5), **options)
    write_run(tmp_path, "mixup-wrn_16_2-seed0", (71.0, 71.5), **{"method.name": "mixup"})
    (tmp_path / "grid.yaml").write_text("methods: {some: {name: mixskd}, mixup: {}}\npaper_table: Table 4\n")
    rows = tabulate(tmp_path)
    assert [row["Table 4: imagenet, resnet50 (%)"] for row in rows] == [78.47, None]
    assert "Table 4: imagenet, resnet50 (%)" in (tmp_path / "table.md").read_text()


def test_headline_of_a_suite_is_a_column(tmp_path: Path) -> None:
    for seed, value in enumerate((40.0, 44.0)):
        name = f"mixup-wrn_16_2-seed{seed}"
        write_run(tmp_path, name, (72.0, 72.5), **{"method.name": "mixup", "run.seed": seed})
        (tmp_path / name / "evaluation").mkdir()
        headline = {"name": "top1 at 0.01", "value": value, "higher_is_better": True}
        (tmp_path / name / "evaluation" / "fgsm.json").write_text(json.dumps({"headline": headline}))
    (row,) = tabulate(tmp_path, ["fgsm"])
    assert row["fgsm: top1 at 0.01"] == pytest.approx(42)
    assert row["fgsm: top1 at 0.01 std"] == pytest.approx(np.std([40, 44], ddof=1))
    with pytest.raises(UserError, match="needs two runs, so it has no column"):
        tabulate(tmp_path, ["confidence"])


def test_papers_fgsm_values_are_beside_each_epsilon(tmp_path: Path) -> None:
    for seed, value in enumerate((40.0, 44.0)):
        name = f"mixup-wrn_16_2-seed{seed}"
        write_run(tmp_path, name, (72.0, 72.5), **{"method.name": "mixup", "run.seed": seed})
        (tmp_path / name / "evaluation").mkdir()
        attacks = [{"epsilon": 0.01, "top1": value}, {"epsilon": 0.02, "top1": value / 2}]
        result = {**RESULTS["fgsm"], "attacks": attacks}
        (tmp_path / name / "evaluation" / "fgsm.json").write_text(json.dumps(result))
    (tmp_path / "grid.yaml").write_text("methods: {mixup: {}}\npaper_table: Table 5, FGSM\nsuites: [fgsm]\n")
    (row,) = tabulate(tmp_path)
    assert row["fgsm at 0.01 (%)"] == pytest.approx(42)
    assert row["Table 5, FGSM: cifar100, wrn_16_2 at 0.01 (%)"] == 40.7
    assert not [column for column in row if "0.02" in column or "0.001" in column]
    assert "Compare the order of the methods" in (tmp_path / "table.md").read_text()


def test_papers_fgsm_values_are_of_the_same_method() -> None:
    own = experiment("mixskd", "wrn_16_2")
    assert published_fgsm(own, anywhere=True) == {0.0001: 67.7, 0.001: 65.5, 0.01: 46.8, 0.1: 15.3}
    assert published_fgsm(own) == {}  # on other data
    assert published_fgsm(experiment("mixskd", "wrn_16_2", temperature=2.0), anywhere=True) == {}
    assert published_fgsm(experiment("cutmix", "wrn_16_2"), anywhere=True) == {}
