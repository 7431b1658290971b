"""The global random numbers for one image: those of torch.manual_seed, at a fraction of its cost."""

from __future__ import annotations

import traceback

import pytest
import torch

from mixskd.runtime.random_numbers import seeded


def test_numbers_are_those_of_manual_seed_and_the_state_is_restored() -> None:
    torch.manual_seed(3)
    first = torch.rand(2)
    for seed in (0, 7, 2**63 - 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = torch.rand(3), torch.randn(2), torch.randint(9, (4,))
        with seeded(seed):
            found = torch.rand(3), torch.randn(2), torch.randint(9, (4,))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), torch.cat([first, after]))


def test_state_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(5):
        torch.rand(-3)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_call_stack_is_noted_for_gpus_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traceback, "format_stack", lambda *_: pytest.fail("a call stack was noted"))
    with seeded(5):
        torch.rand(1)
