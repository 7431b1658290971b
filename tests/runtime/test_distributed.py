"""What processes tell each other, and which of them says what went wrong."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from mixskd.config import DataConfig
from mixskd.data import ImageSet, load_data, make_test_loader
from mixskd.errors import UserError, exit_code
from mixskd.runtime import distributed
from mixskd.runtime.distributed import FAILURE, World, _first_fails_with, join
from mixskd.tasks.classification import Classification
from mixskd.tasks.scoring import score
from tests.conftest import make_toy
from tests.methods.support import make


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


def _one_gpu(monkeypatch: pytest.MonkeyPatch, why_not: str | None) -> None:
    """A machine with one GPU, that does not work for the reason ``why_not``."""
    for name, answer in {"is_available": True, "device_count": 1, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(distributed, "why_not_use", lambda _device: why_not)


@pytest.mark.parametrize(
    ("device", "why_not", "backend"),
    [
        ("auto", None, "nccl"),
        ("cuda", None, "nccl"),
        ("cpu", None, "gloo"),
        ("auto", "no kernel image is available for execution on the device", "gloo"),
    ],
)
def test_backend_follows_the_device(
    device: str, why_not: str | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU is used where a GPU does not work, and NCCL takes no tensor of a CPU."""
    begun: list[str] = []
    store = dist.HashStore()
    store.set("attempt0/answer 1", str(backend == "nccl"))
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    _one_gpu(monkeypatch, why_not)
    monkeypatch.setattr(dist, "rendezvous", lambda _url: iter([(store, 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: begun.append(backend))
    for name, value in {"get_rank": 0, "new_group": None}.items():
        monkeypatch.setattr(dist, name, lambda *_, value=value, **__: value)
    ended: list[None] = []
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append(None))
    with join(device) as world:
        assert (world.rank, world.size) == (0, 2)
    assert begun == [backend]
    assert len(ended) == 1
    for error in (UserError("a bad file"), RuntimeError("a bug"), SystemExit(143)):
        with pytest.raises(type(error)), join(device):
            raise error
    # NCCL's end waits for processes that wait for a message of this one.
    assert len(ended) == (1 if backend == "nccl" else 4)
    store.set("attempt0/answer 1", str(backend != "nccl"))
    with pytest.raises(UserError, match="the GPUs of some processes work and those of others do not"), join(device):
        pass


@pytest.mark.parametrize(("local", "says"), [("1", True), ("2", False)])
def test_more_processes_than_gpus_is_one_line(
    local: str, says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "3", "RANK": local, "LOCAL_RANK": local}.items():
        monkeypatch.setenv(name, value)
    _one_gpu(monkeypatch, None)

    def act() -> None:
        with join("auto"):
            pass

    assert exit_code(act) == 2
    line = "mixskd: error in process 1: each process needs its own GPU, and this machine has 1; start 1 per host\n"
    assert capsys.readouterr().err == (line if says else "")


def test_error_of_one_process_is_printed_with_its_rank(
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


def test_later_process_knows_whether_the_first_reports_its_error() -> None:
    store = dist.HashStore()
    assert not _first_fails_with(store, "a line")
    threading.Timer(0.1, lambda: store.set(FAILURE, "a line")).start()
    assert _first_fails_with(store, "a line")
    assert not _first_fails_with(store, "another")


@pytest.mark.parametrize("files", [False, True])
def test_more_processes_than_images_to_score(files: bool, npz: Path, tmp_path: Path) -> None:
    """The last of eight processes has none of six images; it must still take part in the sums."""
    data = load_data(DataConfig(source=str(npz)))
    if files:
        split = data.splits["test"]
        paths = [tmp_path / f"{i}.png" for i in range(len(split))]
        for path, pixels in zip(paths, split.images, strict=True):
            Image.fromarray(pixels).save(path)
        data = dataclasses.replace(data, splits={**data.splits, "test": ImageSet(paths, split.labels)})
    model, task, device = make_toy(classes=3).float(), Classification(3), torch.device("cpu")
    counts = []
    for rank in range(8):
        loader = make_test_loader(data, device, workers=0, world=World(rank, 8))
        batches = list(loader)
        counts.append(sum(len(labels) for _, labels in batches))
        assert batches[0][0].shape[1:] == (3, 8, 8)
        named: dict[str, torch.Tensor] = make("baseline", model).heads(batches[0][0])
        assert named["backbone"].shape == (len(batches[0][1]), 3)
        assert score(model, loader, task, device).keys() == {"top1", "top5", "loss"}
    assert counts == [1] * 6 + [0] * 2
