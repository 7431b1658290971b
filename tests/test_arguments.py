"""Arguments of the Python functions of a wrong type: a TypeError at the call that names it, or a UserError."""

from __future__ import annotations

from typing import Any

import pytest

import mixskd
from mixskd.errors import UserError

WRONG = [3, 1.5, b"bytes", [1], {"a": 1}, object(), True, ("x",)]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("function", "name", "fine"),
    [
        ("train", "recipe", ()), ("train", "out", ()), ("train", "resume", (bool,)), ("train", "overwrite", (bool,)),
        ("train", "listeners", (list, tuple)), ("train", "data", ()), ("train", "backbone", ()),
        ("train", "method", ()), ("train", "run", ()), ("train", "optim", ()), ("train", "weights", ()),
        ("benchmark", "variants", ()), ("benchmark", "rounds", (int,)), ("evaluate", "path", ()),
        ("evaluate", "data", ()), ("evaluate", "split", ()), ("evaluate", "batch_size", (int,)),
        ("predict", "path", ()), ("predict", "images", (list, tuple)), ("predict", "top", (int,)),
        ("export", "path", ()), ("export", "to", ()), ("export", "out", ()), ("load", "path", ()),
        ("compare", "recipe", ()), ("compare", "methods", ()), ("compare", "seeds", ()),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_at_the_call(
    function: str, name: str, fine: tuple, value: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(value) in fine:
        pytest.skip("not wrong")
    monkeypatch.chdir(tmp_path)
    needed: dict[str, dict[str, Any]] = {
        "evaluate": {"path": "none"}, "predict": {"path": "none", "images": []}, "load": {},
        "export": {"path": "none", "to": "onnx"}, "train": {"data": "none/none"}, "benchmark": {"data": "none/none"},
        "compare": {"data": "none/none", "launcher": "none"},
    }  # fmt: skip
    arguments = {**needed[function], name: value}
    with pytest.raises((UserError, TypeError)) as caught:
        getattr(mixskd, function)(**arguments)
    if isinstance(caught.value, TypeError):
        assert f"{function}() needs {name} as " in str(caught.value)
