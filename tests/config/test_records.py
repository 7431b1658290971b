"""Any value of any JSON type in any field ends in success or one line: metadata, checkpoint, YAML, arrays."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct, field
from safetensors.torch import load_file, save_file

from mixskd.artifacts.model_file import Description, load_model
from mixskd.config import read_yaml
from mixskd.config.build import build_experiment
from mixskd.config.merging import merge
from mixskd.config.records import Amount, Mismatch, Number, Place, PositiveNumber, Text, read_record
from mixskd.data.sources.arrays import load_npz
from mixskd.errors import UserError
from mixskd.errors.text import shown
from mixskd.runtime.digest import digest_of
from mixskd.training.checkpoint import Checkpoint, examined
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
        read_record(put_at(ABOUT, place, value), Description)
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
        build_experiment(merge(put_at(YAML, place, value)))
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


class Inner(Struct, forbid_unknown_fields=True):
    epoch: Place


class Outer(Struct):
    x: Number
    amount: Amount = 0
    rate: PositiveNumber = 1
    name: Annotated[str, Meta(min_length=1, max_length=3)] = "a"
    pair: Annotated[list[Place], Meta(min_length=2, max_length=2)] = field(default_factory=lambda: [1, 2])
    table: dict[Text, Place] = {}
    inner: Inner | None = None
    rows: list[Inner] = []
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "it must be a mapping, not a list"),
        ({}, "it lacks x"),
        ({"x": None}, "x must be a number, not null"),
        ({"x": True}, "x must be a number, not true or false"),
        ({"x": float("nan")}, "x must be a number at least -1e+15"),
        ({"x": float("inf")}, "x must be a number at most 1e+15"),
        ({"x": 10**400}, "x: Number out of range"),
        ({"x": 1, "amount": -0.5}, "amount must be a number at least 0"),
        ({"x": 1, "rate": 0}, "rate must be a number above 0"),
        ({"x": 1, "name": "long text"}, "name must be text of length at most 3"),
        ({"x": 1, "pair": [1]}, "pair must be a list of length at least 2"),
        ({"x": 1, "pair": [1, "a"]}, "pair[1] must be a whole number, not text"),
        ({"x": 1, "pair": [1, 1.0]}, "pair[1] must be a whole number, not a number"),
        ({"x": 1, "table": {"a": None}}, "table[...] must be a whole number, not null"),
        ({"x": 1, "table": {1: 1}}, "a key of table must be text, not a whole number"),
        ({"x": 1, "inner": {}}, "inner lacks epoch"),
        ({"x": 1, "inner": 3}, "inner must be a mapping or null, not a whole number"),
        ({"x": 1, "rows": [{"epoch": 0}]}, "rows[0].epoch must be a whole number at least 1"),
        ({"x": 1, "inner": {"epoch": 1, "b": 2}}, "inner holds b, which is not known"),
        ({"x": 1, "kind": "c"}, "kind: Invalid enum value 'c'"),
    ],
)
def test_the_message_names_the_place(values: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        read_record(values, Outer)
    assert str(caught.value) == message


def test_whole_records_are_read() -> None:
    assert read_record({"x": 1, "rows": [{"epoch": 2}], "more": 3}, Outer).rows == [Inner(2)]
    assert read_record(ABOUT, Description).temperature == 1.5
    assert read_record(state(), Checkpoint).position.step == 3


def test_values_are_shortened_in_messages() -> None:
    assert shown("a" * 100) == "'" + "a" * 36 + "..."
    assert shown(10**5000) == "a huge number"


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


class Counted(Struct):
    """A number."""

    count: int


def test_half_a_character_is_no_number() -> None:
    with pytest.raises(Mismatch, match="half a character"):
        read_record({"count": "\ud800"}, Counted)
    with pytest.raises(UserError, match=r"run\.epochs must be a whole number"):
        build_experiment({"run": {"epochs": "\ud800"}})
