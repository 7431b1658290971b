"""Any value of any JSON type in any field ends in success or one line: metadata, checkpoint, YAML, arrays."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mixskd.artifacts.model_file import SCHEMA as MODEL
from mixskd.artifacts.model_file import load_model
from mixskd.config import from_dict, nest, read_yaml
from mixskd.config.schema import Mismatch, integer, items, number, optional, record, shown, string, table
from mixskd.data.sources.arrays import load_npz
from mixskd.errors import UserError
from mixskd.runtime.digest import digest_of
from mixskd.training.checkpoint import SCHEMA as CHECKPOINT
from mixskd.training.checkpoint import examined
from tests.bad_inputs import described, put, whole_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

ABOUT = {
    "format": "mixskd-model-2", "backbone": "wrn_10_1", "classes": ["a", "b"], "image_size": 8,
    "mean": [0.5] * 3, "std": [0.5] * 3, "temperature": 1.5, "threshold": 0.5,
}  # fmt: skip


def state() -> dict[str, Any]:
    """A small checkpoint."""
    return {
        "method": {"w": torch.zeros(2)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scaler": {},
        "ema": None,
        "position": {"step": 3, "rows": [{"epoch": 1, "step": 3, "lr": 0.1}], "seconds": 1.0, "images": 12},
        "sums": [{"loss": torch.zeros(())}],
        "data": {"classes": ["a", "b"], "training": 3, "digest": "0"},
    }


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """The place of every value within ``value``."""
    found = [at] if at else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found += paths(part, (*at, key))
    return found


def put_at(value: Any, place: tuple, new: Any) -> Any:
    """``value`` with ``new`` at ``place``."""
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return value


def one_line(error: Exception) -> None:
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1000


@SOME
@given(st.sampled_from(paths(ABOUT)), JSON)
def test_any_metadata(place: tuple, value: Any) -> None:
    try:
        MODEL(put_at(ABOUT, place, value), "")
    except Mismatch as error:
        one_line(error)


@settings(SOME, max_examples=15)
@given(st.sampled_from(paths(ABOUT)), JSON)
def test_any_metadata_in_a_file(place: tuple, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "m.safetensors", whole_model())
        about = put_at({**described(path), "format": "mixskd-model-1"}, place, value)
        save_file(load_file(path), path, metadata={"mixskd": json.dumps(about)})
        try:
            load_model(path)
        except UserError as error:
            one_line(error)


@SOME
@given(st.sampled_from(paths(state())), JSON)
def test_any_checkpoint(place: tuple, value: Any) -> None:
    try:
        examined(put_at(state(), place, value), Path("c"))
    except UserError as error:
        one_line(error)


YAML = {
    "backbone": "resnet18", "weights": "a", "method": {"name": "mixup", "alpha": 1.0}, "out": "b",
    "data": {"source": "digits", "holdout": 0.2, "flip": True, "image_size": 3, "augment": "none"},
    "optim": {"lr": 0.1, "milestones": [1, 2], "nesterov": True},
    "run": {"epochs": 3, "batch_size": 4, "seed": 1, "progress": False, "precision": "auto"},
}  # fmt: skip


@SOME
@given(st.sampled_from(paths(YAML)), JSON)
def test_any_settings(place: tuple, value: Any) -> None:
    try:
        from_dict(nest(put_at(YAML, place, value)))
    except UserError as error:
        one_line(error)


@SOME
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | JSON.map(lambda v: yaml.safe_dump(v).encode()))
def test_any_yaml(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            assert isinstance(read_yaml(put(Path(folder), "a.yaml", content)), dict)
        except UserError as error:
            one_line(error)


ARRAYS = st.sampled_from(["train_images", "train_labels", "test_images", "test_labels", "classes"])
VALUES = JSON.map(lambda value: np.array(value, dtype=object)) | st.sampled_from(
    [
        np.array(1.5), np.zeros(3), np.zeros((6, 4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((6, 4, 0, 3), np.uint8), np.arange(6) - 2, np.full(6, 2**62), np.array(["a", "b"]), np.array(b"a"),
        np.zeros((6, 1), np.int8), np.zeros(6, np.uint64) + 2**63, np.zeros(6, bool), np.zeros(6, "datetime64[s]"),
        np.zeros(6, [("a", "i4"), ("b", "f8")]), np.zeros(6, complex), np.array([]), np.zeros((6, 4, 4), np.uint8),
    ]
)  # fmt: skip


@SOME
@given(ARRAYS, VALUES)
def test_any_array(name: str, value: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arrays = {
            "train_images": np.zeros((6, 4, 4, 3), np.uint8), "train_labels": np.arange(6) % 3,
            "test_images": np.zeros((3, 4, 4, 3), np.uint8), "test_labels": np.arange(3),
        }  # fmt: skip
        np.savez(Path(folder) / "a.npz", **{**arrays, name: value})
        try:
            read_npz(Path(folder) / "a.npz")
        except UserError as error:
            one_line(error)


def read_npz(path: Path) -> object:
    """The data in ``path``, as the command line reads them."""
    data = load_npz(path)
    data.check()
    return data


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (integer(1, 3), 4, "x must be a whole number from 1 to 3, not 4"),
        (integer(), True, "x must be a whole number"),
        (integer(), 1.0, "x must be a whole number"),
        (number(0), -0.5, "x must be 0 or above, not -0.5"),
        (number(above=0), 0, "x must be above 0, not 0"),
        (number(0, 1), 1.5, "x must be 1 or below, not 1.5"),
        (number(), float("nan"), "x must be a finite number, not nan"),
        (number(), 10**400, "x must be a finite number"),
        (string(3), "long text", "x must have 1 to 3 characters, not 9"),
        (items(integer(), 2, 2), [1], "x must hold 2 values, not 1"),
        (items(integer()), [1, "a"], "x[1] must be a whole number"),
        (table(integer()), {"a": None}, "x.a must be a whole number"),
        (table(integer()), {1: 1}, "a key of x must be text"),
        (record({"a": integer()}), {}, "x lacks a"),
        (record({"a": integer()}), [], "x must hold keys, not a list"),
        (record({"a": integer()}, closed=True), {"a": 1, "b": 2}, "x holds 'b', which is not known"),
        (optional(integer()), "a", "x must be a whole number"),
    ],
)
def test_a_check_names_the_place(check: Any, value: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        check(value, "x")
    assert message in str(caught.value)


def test_what_fits_passes() -> None:
    record({"a": optional(items(number(0, finite=False)))}, {"b": string()})({"a": [0, 1.5, float("inf")], "c": 1}, "x")
    optional(integer())(None, "x")
    assert shown("a" * 100) == "'" + "a" * 36 + "..."
    assert shown(10**5000) == "a huge number"
    MODEL(ABOUT, "")
    CHECKPOINT(state(), "")


def test_equal_content_has_one_digest_and_any_change_another() -> None:
    assert digest_of(state()) == digest_of(copy.deepcopy(state()))
    seen = {digest_of(state())}
    for place in paths(state()):
        seen.add(digest_of(put_at(state(), place, "other")))
    assert len(seen) == len(paths(state())) + 1
    for tensor in (torch.ones(2), torch.zeros(2, dtype=torch.float64), torch.zeros(1, 2), torch.zeros(2).bfloat16()):
        assert digest_of(tensor) != digest_of(torch.zeros(2))
    assert digest_of(torch.arange(6).reshape(2, 3).T) == digest_of(torch.arange(6).reshape(2, 3).T.contiguous())


def test_what_would_never_end_has_no_digest() -> None:
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]
    for value in (bomb, torch.zeros(1).expand(2**40), object(), torch.zeros(2).to_sparse(), {"a": {1, 2}}):
        with pytest.raises(ValueError):
            digest_of(value)
