"""Tables with a row for each image: too large ones are refused before the run."""

from __future__ import annotations

import pytest
import torch

from mixskd import PSKD, UserError
from mixskd.methods.parts.per_image_tables import table_notes
from tests.conftest import make_toy


def test_table_that_exceeds_the_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"10,000,000,000,000 images x 5 classes takes 200000\.0 GB"):
        PSKD(make_toy()).make_room(10**13)


def test_large_table_is_noted_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet = torch.empty(1_281_167, 1000, device="meta")
    cpu = torch.device("cpu")
    assert table_notes([torch.zeros(10, 5)], cpu) == []
    assert "5.1 GB on the device, and in each checkpoint" in table_notes([imagenet], cpu)[0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 10**9, 80 * 10**9))
    with pytest.raises(UserError, match=r"5\.1 GB, and cuda:0 has 4\.0 GB free"):
        table_notes([imagenet], torch.device("cuda:0"))
