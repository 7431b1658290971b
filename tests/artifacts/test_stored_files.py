"""Any JSON value in what runs left behind ends in a table and a report, or in one line that names the file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mixskd.artifacts.model_file import Classifier, load_model
from mixskd.artifacts.results import read_results
from mixskd.artifacts.stored_files import read_grid
from mixskd.benchmarking.cost import Cost
from mixskd.config import to_yaml
from mixskd.config.build import build_experiment
from mixskd.deploy.model_card import model_card
from mixskd.errors import UserError
from mixskd.evaluation.stored_results import read_suite
from mixskd.evaluation.suites import SUITES
from mixskd.reporting import grouping
from mixskd.reporting.evidence import Readable, Run, read_evidence
from mixskd.reporting.grouping import put_together
from mixskd.reporting.page.mistakes import mistake_section, suspect_section
from mixskd.reporting.page.report import _trained, _worst
from mixskd.reporting.plots.colours import Looks
from mixskd.reporting.plots.suites import suite_plots
from mixskd.reporting.tables.comparison import write_tables
from mixskd.reporting.tables.suites import suite_tables
from tests.config.test_records import JSON, SOME, one_line, paths, put_at
from tests.deploy.support import write_model

SUMMARY: dict[str, Any] = {
    "format": "mixskd-summary-2", "scores": {"test": {"top1": 50.0, "top5": 100.0, "loss": 1.1}},
    "deployed": {"epoch": 1, "selected_on": None}, "last": {"epoch": 1, "split": "test", "top1": 50.0},
    "best": {"epoch": 1, "split": "test", "top1": 50.0}, "notes": ["slow"], "updates": 4, "images": 8, "seconds": 0.3,
    "images_per_second": 24.5, "precision": "fp32", "device": "CPU", "classes": 3, "image_size": 8, "threads": 1,
    "parameters": 77395, "mixskd": "0.1.0", "torch": "2.14",
}  # fmt: skip
FIRST_FORMAT = {
    **{key: value for key, value in SUMMARY.items() if key not in ("scores", "deployed", "best", "format")},
    "best_on_test": {"epoch": 1, "top1": 50.0},
}
EVERY = {"suite": "x", "protocol": {"text": "x"}, "split": "test", "images": 6,
         "headline": {"name": "score", "value": 1.5, "higher_is_better": True}}  # fmt: skip
BINS = [{"low": 0.0, "high": 0.5, "images": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 1.0, "images": 6, "confidence": 0.7, "accuracy": 0.5}]  # fmt: skip
WHOLE = {"ece": 5.0, "adaptive_ece": 4.5, "brier": 0.6, "nll": 1.1, "reliability": BINS}
COUNTS = {"mean": -1.0, "edges": [-2.0, -1.0, 0.0], "counts": [1, 2]}
SCORE = {"auroc": 60.0, "fpr95": 80.0}
RESULTS: dict[str, dict[str, Any]] = {
    "accuracy": {
        "confusion": [[1, 2], [0, 3]],
        "classes": [{"name": n, "recall": 50.0, "precision": 60.0, "f1": 55.0, "images": 3} for n in "ab"],
    },
    "calibration": {"whole": WHOLE, "before": WHOLE, "after": WHOLE, "temperature": 1.2, "fitted_on": "val"},
    "confidence": {"shared_mistakes": 3, "models": {name: {"predicted": COUNTS, "true": COUNTS} for name in "pq"}},
    "corruption": {"clean_error": 40.0, "mean_corruption_error": 50.0, "protocol": {"severities": [1, 2]},
                   "corruptions": {name: {"error": 45.0, "by_severity": [40.0, 50.0]} for name in ("fog", "blur")}},
    "errors": {
        "number_of_mistakes": 1, "pairs": [{"label": "a", "predicted": "b", "images": 1, "share_of_label": 33.3}],
        "mistakes": [{"index": 2, "path": None, "label": "a", "predicted": "b", "label_probability": 0.2,
                      "predicted_probability": 0.7}],
        "number_of_suspects": 1,
        "suspects": [{"index": 3, "path": "a.png", "label": "a", "predicted": "b", "label_probability": 0.1,
                      "predicted_probability": 0.8}],
    },
    "features": {"trained_on": "train", "train_images": 9, "feature_dim": 64, "knn_top1": 50.0, "linear_top1": 55.0,
                 "converged": True},
    "fgsm": {"clean_top1": 50.0, "attacks": [{"epsilon": 0.001, "top1": 40.0}, {"epsilon": 0.01, "top1": 10.0}]},
    "linearity": {"curve": [{"lambda": 0.5, "miss_rate": 20.0, "mass": 0.8}]},
    "ood": {"other_data": "digits", "other_images": 6, "max_softmax": SCORE, "energy": SCORE},
    "pgd": {"clean_top1": 50.0, "protocol": {"space": "pixels"}, "attacks": [{"epsilon": 0.01, "top1": 5.0}]},
}  # fmt: skip
RESULTS = {name: {**EVERY, **result} for name, result in RESULTS.items()}
GRID = {"methods": ["baseline"], "suites": ["fgsm"], "paper_table": "table2"}
METRICS = "epoch,step,train_loss\n1,4,1.5\n"


@pytest.fixture(autouse=True, scope="module")
def _cost() -> Iterator[None]:
    """Nothing is counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "count_cost", lambda *_: Cost(1.0, 2.0, 3.0, 4, 5))
        patch.setattr(grouping, "classes_from", lambda *_: 3)
        yield


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "m.safetensors"))


def names(error: UserError, file: str) -> None:
    one_line(error)
    assert file in str(error)


def put(folder: Path, summary: Any = None, **suites: Any) -> Path:
    """The run ``folder / a`` with what is to be read."""
    run = folder / "a"
    (run / "evaluation").mkdir(parents=True)
    values = {"backbone": "wrn_10_1", "method": {"name": "baseline"}, "data": {"source": "none.npz"}}
    (run / "config.yaml").write_text(to_yaml(build_experiment(values)))
    (run / "summary.json").write_text(json.dumps(SUMMARY if summary is None else summary))
    (run / "metrics.csv").write_text(METRICS)
    for name, result in suites.items():
        (run / "evaluation" / f"{name}.json").write_text(json.dumps(result))
    return run


def shown(folder: Path, suites: tuple[str, ...] = ()) -> None:
    """All that is made of the runs in ``folder``, less the page around it."""
    write_tables(put_together(read_results(folder)), folder, None, suites)
    evidence = read_evidence([folder])
    _trained(evidence), _worst(evidence), evidence.runs[0].curves
    mistake_section(evidence, Readable()), suspect_section(evidence, Readable())
    suite_tables(evidence), suite_plots(evidence, Looks(evidence))


def one_line_or_success(folder: Path, file: str, suites: tuple[str, ...] = ()) -> None:
    try:
        shown(folder, suites)
    except UserError as error:
        names(error, file)


@pytest.mark.parametrize("summary", [SUMMARY, FIRST_FORMAT], ids=["summary", "of the first format"])
@SOME
@given(st.data(), JSON)
def test_any_summary(summary: dict[str, Any], data: st.DataObject, value: Any) -> None:
    place = data.draw(st.sampled_from([(), *paths(summary)]))
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), put_at(summary, place, value) if place else value)
        one_line_or_success(Path(folder), "summary.json")


@SOME
@given(st.data(), st.none() | JSON | st.sampled_from(["\ud800", {"\udbff": 1.0}, ["\udd00"]]))
def test_any_summary_in_a_model_card(classifier: Classifier, data: st.DataObject, value: Any) -> None:
    place = data.draw(st.sampled_from(paths(SUMMARY)))
    with tempfile.TemporaryDirectory() as folder:
        run = put(Path(folder), put_at(SUMMARY, place, value))
        try:
            model_card(classifier, run, "me/flowers").encode()
        except UserError as error:
            names(error, "summary.json")


@pytest.mark.parametrize("name", RESULTS)
@settings(SOME, max_examples=25)  # each may draw figures
@given(st.data(), JSON)
def test_any_result_of_a_suite(name: str, data: st.DataObject, value: Any) -> None:
    place = data.draw(st.sampled_from([(), *paths(RESULTS[name])]))
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), **{name: put_at(RESULTS[name], place, value) if place else value})
        one_line_or_success(Path(folder), f"{name}.json", (name,))


@pytest.mark.parametrize("name", RESULTS)
def test_missing_key_of_a_result_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(RESULTS[name]))
    assert read_suite(path, name) == RESULTS[name]
    for key in RESULTS[name].keys() - {"suite", "protocol"}:
        path.write_text(json.dumps({k: v for k, v in RESULTS[name].items() if k != key}))
        with pytest.raises(UserError, match=rf"{name}\.json is not a result of the suite {name}: .*lacks {key}"):
            read_suite(path, name)


def test_every_suite_has_a_typed_result() -> None:
    assert set(SUITES) == RESULTS.keys()


@SOME
@given(st.data(), JSON)
def test_any_grid(data: st.DataObject, value: Any) -> None:
    place = data.draw(st.sampled_from([(), *paths(GRID)]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_text(yaml.safe_dump(put_at(GRID, place, value) if place else value))
        try:
            grid = read_grid(path)
        except UserError as error:
            names(error, "grid.yaml")
        else:
            assert all(isinstance(name, str) for key in ("methods", "suites") for name in grid[key])


@SOME
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode).map(b"epoch,a,b\n1,".__add__))
def test_any_metrics(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = put(Path(folder))
        (run / "metrics.csv").write_bytes(content)
        try:
            found = Run("a", read_results(Path(folder))[0]).curves
        except UserError as error:
            names(error, "metrics.csv")
        else:
            assert all(abs(y) <= 1e15 for points in found.values() for _, y in points)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("accuracy", {"confusion": [[1, 2]]}, "confusion must have 2 rows and columns"),
        (
            "calibration",
            {"whole": {**WHOLE, "reliability": [{**BINS[0], "images": 2}]}},
            "whole.reliability[0]: a bin",
        ),
        (
            "calibration",
            {"after": {"ece": 1.0, "reliability": [{**BINS[0], "images": 2}]}},
            "after.reliability[0]: a bin",
        ),
        (
            "confidence",
            {"models": {"p": {"predicted": {**COUNTS, "counts": [1]}, "true": COUNTS}}},
            "predicted: there must",
        ),
        ("corruption", {"corruptions": {}}, "corruptions must have 2 errors each"),
        ("fgsm", {"attacks": []}, "attacks must be a list of length at least 1"),
        ("ood", {"headline": {"name": "x", "value": None}}, "headline.value must be a number"),
        ("pgd", {"images": 1e300}, "images must be a number at most 1e+15"),
    ],
)
def test_inconsistent_result_is_refused(name: str, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**RESULTS[name], **change}))
    with pytest.raises(UserError) as caught:
        read_suite(path, name)
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_file_that_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    run = put(tmp_path)
    (run / "summary.json").write_bytes(content)
    with pytest.raises(UserError, match=r"summary\.json is not the summary of a run.*; remove it") as caught:
        read_results(tmp_path)
    one_line(caught.value)


def test_invalid_config_is_named(tmp_path: Path) -> None:
    run = put(tmp_path)
    (run / "config.yaml").write_text("run: {epochs: many}")
    with pytest.raises(UserError, match=r"config\.yaml is not the configuration of a run: run\.epochs"):
        read_results(tmp_path)
