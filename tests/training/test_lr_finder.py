"""The range test: its rates, its suggestion on a problem with a known answer, and the state afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixskd
from mixskd.cli.main import main
from mixskd.config.build import build_experiment
from mixskd.errors import UserError
from mixskd.training.factory import build_parts
from mixskd.training.lr_finder import range_test, suggest


def settings(npz: Path, method: str) -> dict[str, object]:
    return {
        "data.source": str(npz), "method.name": method, "backbone": "wrn_10_1", "run.batch_size": 4,
        "run.device": "cpu", "run.precision": "fp32", "run.measure": False,
    }  # fmt: skip


@pytest.mark.parametrize("method", ["baseline", "mixskd", "dlb"])
def test_range_test_restores_weights_optimizer_and_random_state(npz: Path, method: str) -> None:
    parts = build_parts(build_experiment(settings(npz, method)))
    before = {name: x.clone() for name, x in parts.step.method.state_dict().items()}
    random = torch.get_rng_state()
    found = range_test(parts, steps=12, lowest=1e-4, highest=1e-1)
    after = parts.step.method.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert not parts.step.optimizer.state_dict()["state"]
    assert torch.equal(random, torch.get_rng_state())
    assert found.rates[0] == pytest.approx(1e-4)
    ratios = {round(b / a, 6) for a, b in zip(found.rates, found.rates[1:], strict=False)}
    assert len(ratios) == 1


def test_suggestion_is_a_tenth_of_the_lowest_loss() -> None:
    assert suggest([0.001, 0.01, 0.25, 1.0], [2.0, 1.5, 0.7, 3.0]) == pytest.approx(0.025)


def test_test_ends_where_the_loss_diverges(npz: Path) -> None:
    parts = build_parts(build_experiment({**settings(npz, "baseline"), "optim.momentum": 0.0, "optim.nesterov": False}))
    found = range_test(parts, steps=60, lowest=1e-3, highest=1e6)
    assert len(found.rates) < 60
    assert found.suggestion < found.rates[-1] / 10


def test_command_draws_the_curve_and_leaves_no_run(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["find-lr", "--data", str(npz), "--backbone", "wrn_10_1", "--method", "mixup", "--batch-size", "4"]
    assert main([*argv, "--steps", "10", "--out", "curve.png"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("--optim.lr ")
    assert "a tenth of the rate at which the smoothed loss is lowest" in output
    assert {path.name for path in tmp_path.iterdir()} == {"toy.npz", "curve.png"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "--steps must be 10 or more"),
        ({"lowest": 1.0, "highest": 0.1}, "--lowest must be above 0 and below --highest"),
        ({"out": "curve.txt"}, "must end in .png or .svg"),
    ],
)
def test_mistake_is_named(npz: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixskd.find_lr(data=str(npz), backbone="wrn_10_1", **options)
