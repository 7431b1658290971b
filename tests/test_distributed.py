"""What processes tell each other, and which of them says what went wrong."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from mixskd.distributed import FAILURE, World, _said_by_the_first, join
from mixskd.errors import UserError, exit_code


def test_tensors_are_gathered_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would else put the tensor of another one on that one's GPU."""
    sent: list[Any] = []

    def gather(values: list[Any], value: Any, group: Any) -> None:
        sent.append(value)
        values[:] = [value, value]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    with FakeTensorMode():
        values = World(0, 2).gather({"loss": torch.ones((), device="cuda"), "steps": 3})
    assert [value["loss"].device.type for value in (*sent, *values)] == ["cpu"] * 3
    assert values[1]["steps"] == 3


@pytest.mark.parametrize(("local", "says"), [("1", True), ("2", False)])
def test_more_processes_than_gpus_is_one_line(
    local: str, says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "3", "RANK": local, "LOCAL_RANK": local}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def act() -> None:
        with join("auto"):
            pass

    assert exit_code(act) == 2
    line = "mixskd: error in process 1: each process needs its own GPU, and this machine has 1; start 1 per host\n"
    assert capsys.readouterr().err == (line if says else "")


def test_an_error_of_one_process_is_said_with_its_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    error = UserError("cannot read\nthe image x.png")

    def act() -> None:
        raise error

    assert exit_code(act) == 2
    assert capsys.readouterr().err == "", "the first process says what all of them meet"
    error.rank = 3
    assert exit_code(act) == 2
    assert capsys.readouterr().err == "mixskd: error in process 3: cannot read the image x.png\n"


def test_whether_the_first_process_says_it() -> None:
    store = dist.HashStore()
    assert not _said_by_the_first(store, "a line")
    threading.Timer(0.1, lambda: store.set(FAILURE, "a line")).start()
    assert _said_by_the_first(store, "a line")
    assert not _said_by_the_first(store, "another")
