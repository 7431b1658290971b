"""Checkpoints that were changed, damaged or belong to another run."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mixskd.errors import UserError
from mixskd.training.checkpoint import (
    OLDER,
    check_fits,
    check_optimizer,
    check_position,
    drop_previous,
    load_checkpoint,
    load_newest,
    previous,
    save_checkpoint,
)
from tests.config.test_records import state


def test_no_flipped_bit_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {**state(), "method": {"w": torch.randn(500)}})
    whole, flip = path.read_bytes(), random.Random(0)
    written = load_checkpoint(path)
    for _ in range(300):
        place = flip.randrange(len(whole) * 8)
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            read = load_checkpoint(path)
            # The bit was in the padding, or in what zip says twice: the content is whole.
            assert torch.equal(read["method"]["w"], written["method"]["w"])
            assert read["position"] == written["position"]


def test_previous_checkpoint_replaces_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2, 3):
        save_checkpoint(path, {**state(), "position": {**state()["position"], "step": step}}, keep=True)
    assert load_checkpoint(previous(path))["position"]["step"] == 2
    assert load_newest(path)[1] == []
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: len(content) // 2])
    found, (note,) = load_newest(path)
    assert found["position"]["step"] == 2
    assert "was damaged" in note
    drop_previous(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt"]
    with pytest.raises(UserError, match="corrupt"):
        load_newest(path)


def test_older_checkpoints_are_read_and_newer_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for name in OLDER:
        torch.save({"format": name, **state()}, path)
        assert load_newest(path)[0]["position"] == state()["position"]
    torch.save({"format": "mixskd-checkpoint-99", **state()}, path)
    with pytest.raises(UserError, match="a newer mixskd wrote it"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", ["method", "optimizer", "scaler", "position", "sums"])
@pytest.mark.parametrize("value", [..., None, 3, "text", [1], {"a": 1}])
def test_missing_or_wrong_part_of_a_checkpoint_is_named(part: str, value: Any, tmp_path: Path) -> None:
    changed = {**state(), part: value}
    if value is ...:
        del changed[part]
    if part == "scaler" and value == {"a": 1}:
        return
    save_checkpoint(tmp_path / "c.pt", changed)
    with pytest.raises(UserError, match=rf"c\.pt is damaged: .*{part}.*"):
        load_newest(tmp_path / "c.pt")


def test_weights_of_another_network_are_refused() -> None:
    live = {"w": torch.zeros(2), "b": torch.zeros(1)}
    check_fits(Path("c"), "method", live, live)
    for saved in ({"w": torch.zeros(2)}, {**live, "c": torch.zeros(1)}, {**live, "w": torch.zeros(3)}, None):
        with pytest.raises(UserError, match="belongs to another run: its method has"):
            check_fits(Path("c"), "method", saved, live)
    with pytest.raises(UserError, match=r"torch\.float64"):
        check_fits(Path("c"), "method", {**live, "w": torch.zeros(2, dtype=torch.float64)}, live)


@pytest.mark.parametrize(
    ("step", "epochs"), [(0, []), (3, []), (4, []), (4, [1]), (7, [1]), (8, [1, 2]), (12, [1, 2, 3])]
)
def test_possible_positions_are_accepted(step: int, epochs: list[int]) -> None:
    position = {"step": step, "rows": [{"epoch": epoch, "step": 4 * epoch} for epoch in epochs]}
    check_position(Path("c"), position, epochs=3, length=4)


@pytest.mark.parametrize(("step", "epochs"), [(5, []), (3, [1]), (9, [1]), (4, [2]), (16, [1, 2, 3, 4]), (8, [1, 3])])
def test_impossible_positions_are_refused(step: int, epochs: list[int]) -> None:
    position = {"step": step, "rows": [{"epoch": epoch, "step": 4 * epoch} for epoch in epochs]}
    with pytest.raises(UserError, match="is damaged"):
        check_position(Path("c"), position, epochs=3, length=4)


def test_state_of_another_optimizer_is_refused() -> None:
    def optimizer(
        sizes: tuple[int, ...] = (2, 3), kind: Any = torch.optim.SGD, **options: Any
    ) -> torch.optim.Optimizer:
        parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
        made = kind(parameters, lr=0.1, **options)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        made.step()
        return made

    live = optimizer(momentum=0.9)
    check_optimizer(Path("c"), optimizer(momentum=0.9).state_dict(), live)
    group = live.state_dict()["param_groups"]
    for saved in (
        optimizer((2,), momentum=0.9).state_dict(),
        optimizer((2, 4), momentum=0.9).state_dict(),
        optimizer(kind=torch.optim.AdamW).state_dict(),
        {"state": {}, "param_groups": []},
        {"state": {7: {}}, "param_groups": group},
        {"state": {0: {"momentum_buffer": "text"}}, "param_groups": group},
        {"state": {}, "param_groups": [{**group[0], "lr": "fast"}]},
        {"state": {}, "param_groups": [{**group[0], "params": [1, 0]}]},
    ):
        with pytest.raises(UserError, match="its optimizer has other parts"):
            check_optimizer(Path("c"), saved, live)
