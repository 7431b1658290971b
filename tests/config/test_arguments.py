"""Arguments of the Python functions of a wrong type: a TypeError at the call that names it, or a UserError."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixskd
from mixskd import api
from mixskd.comparison.comparison import compare
from mixskd.comparison.search.tune import tune
from mixskd.config.arguments import checked
from mixskd.config.types import Count
from mixskd.errors import UserError
from mixskd.evaluation.runner import run_suites
from tests.conftest import make_toy, write_npz

WRONG = [3, 1.5, b"bytes", [1], {"a": 1}, object(), True, ("x",), [None], "text", "\ud800"]
# The types that each argument may have. No call may come so far that the missing data of ``none/none`` matter.
RIGHT: dict[str, tuple[type, ...]] = {
    "listeners": (), "images": (tuple,), "runs": (tuple, str), "classes": (tuple,), "mean": (), "std": (),
    "methods": (tuple, str, dict), "backbones": (tuple, str), "augments": (tuple, str), "seeds": (tuple, str, list),
    "suites": (tuple, str), "options": (dict,), "transfer": (dict,), "launcher_options": (dict,), "progress": (bool,),
    **dict.fromkeys(("resume", "overwrite", "dry_run", "public", "force", "softmax"), (bool,)),
    **dict.fromkeys(("dynamic_size", "flips"), (bool,)),
    **dict.fromkeys(("rounds", "batch_size", "top", "workers", "seed", "image_size", "jobs"), (int,)),
    **dict.fromkeys(("images_per_update", "folds", "trials", "steps"), (int,)), "refit": (bool,), "space": (str, dict),
    **dict.fromkeys(("hours", "operations", "lowest", "highest"), (int, float)),
    **dict.fromkeys(("target_accuracy", "coverage", "threshold"), (int, float)),
    "temperature": (int, float, str), "data": (str, dict), "method": (str, dict),
}  # fmt: skip
# Beside these, which are text or paths: settings whose types the Experiment examines.
MORE = {"run_suites": run_suites, "compare": compare, "tune": tune}
OPTIONS = {"export": ("input", "softmax", "temperature", "dynamic_size", "dtype")}
NEEDED: dict[str, dict[str, Any]] = {
    "probe": {"data": "none/none", "backbone": "wrn_10_1"},
    "average": {"runs": ["run", "other"], "out": "average"},
    "evaluate": {"path": "run"}, "predict": {"path": "run", "images": ["a.png"]}, "calibrate": {"path": "run"},
    "push": {"path": "run", "to_folder": "card"}, "export": {"path": "run", "to": "safetensors"}, "load": {},
    "train": {"data": "none/none"}, "benchmark": {"data": "none/none"}, "show_data": {"data": "none/none"},
    "tune": {"data": "none/none"}, "find_lr": {"data": "none/none"},
    "compare": {"data": "none/none"}, "report": {"runs": "run"}, "run_suites": {"runs": ["run"], "suites": "accuracy"},
    "save_model": {"path": "m", "classes": list("abcde"), "image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3},
}  # fmt: skip


def arguments(function: str) -> list[str]:
    """The names of all that ``function`` takes, those of the function behind its ``**`` too."""
    found = {**inspect.signature(getattr(api, function)).parameters}
    if function in MORE:
        found |= inspect.signature(MORE[function]).parameters
    unnamed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    names = [name for name, parameter in found.items() if parameter.kind not in unnamed]
    return [*names, *OPTIONS.get(function, ())]


ROWS = [(function, name) for function in NEEDED for name in arguments(function)]
SETTINGS = [(function, name) for function in ("train", "benchmark", "show_data", "compare")
            for name in ("data", "backbone", "method", "run", "optim", "weights")]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("place")
    mixskd.train(
        data=str(write_npz(folder / "toy.npz")), backbone="wrn_10_1", method="baseline", out=str(folder / "run"),
        run={"epochs": 1, "batch_size": 4, "progress": False},
    )  # fmt: skip
    return folder


def test_every_public_function_is_in_the_table() -> None:
    assert {
        name for name in mixskd.__all__ if hasattr(api, name) and name not in ("StagedBackbone", "UserError")
    } == set(NEEDED)


def test_report_works_after_its_package_was_imported() -> None:
    import mixskd.reporting.grouping

    with pytest.raises(UserError, match="there is no folder none"):
        mixskd.report("none")
    with pytest.raises(TypeError, match=r"report\(\) needs out as"):
        mixskd.report("none", out=3)


@pytest.mark.parametrize("row", dict.fromkeys(ROWS + SETTINGS), ids=" ".join)
def test_a_wrong_type_is_named_at_the_call(row: tuple[str, str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, name = row
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    for value in WRONG:
        right = (int,) if row == ("show_data", "images") else RIGHT.get(name, (str,))
        if isinstance(value, right) and (bool in right or not isinstance(value, bool)):
            continue
        if name == "backbone" and function == "save_model" and isinstance(value, str):
            value = 7
        given = {**NEEDED[function], name: value}
        if function == "save_model":
            given.setdefault("backbone", make_toy())
        with pytest.raises((UserError, TypeError)) as caught:
            getattr(api, function)(**given)
        said = str(caught.value)
        assert len(said.splitlines()) == 1
        if isinstance(caught.value, TypeError):
            assert f"{function}() needs {name} as " in said
        else:
            assert "none/none" not in said, value
    assert sorted(place.rglob("*")) == before


@checked
def act(
    names: Sequence[str | Path], count: Count | None = None, rate: float = 1, more: str | Sequence[float] | None = None
) -> str:
    return "done"


def test_values_of_the_annotated_types_pass() -> None:
    assert act(["a", Path("b")], 3, more=[1, 2.5]) == act((), None, more="a") == act([], rate=2, more=None) == "done"
    assert act([], np.int64(3), np.float32(0.5)) == "done"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": "ab"}, "act() needs names as a list of str or Path, not str"),
        ({"names": ["a", 3]}, "act() needs names as a list of str or Path; one of its values is of int"),
        ({"names": None}, "act() needs names as a list of str or Path, not NoneType"),
        ({"names": [], "count": True}, "act() needs count as int 1 or above, not bool"),
        ({"names": [], "count": 0}, "act() needs count as int 1 or above, not 0"),
        ({"names": [], "count": 1.5}, "act() needs count as int 1 or above, not 1.5"),
        ({"names": [], "rate": "1"}, "act() needs rate as float, not str"),
        ({"names": [], "more": [True]}, "act() needs more as str or a list of float; one of its values is of bool"),
        ({"names": [], "jobs": 3}, "act() cannot be called like this: got an unexpected keyword argument 'jobs'"),
        ({}, "act() cannot be called like this: missing a required argument: 'names'"),
    ],
)
def test_a_wrong_type_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        act(**given)
    assert str(caught.value) == message


def test_unknown_keywords_of_the_functions_behind_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"run_suites\(\) cannot be called like this: .*'sede'"):
        mixskd.run_suites(["run"], "accuracy", sede=1)
    with pytest.raises(UserError, match="unknown key softmaxx; did you mean 'softmax'"):
        mixskd.export("run", softmaxx=True)
