"""What is removed of a run, and what is refused before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixskd.config import Experiment
from mixskd.errors import UserError
from mixskd.training.run_folder import RunFolder


def test_overwrite_refuses_a_linked_folder_before_removing_anything(tmp_path: Path) -> None:
    run, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.begin(Experiment())
    run.model.write_text("weights")
    (run.path / "evaluation").symlink_to(elsewhere)
    with pytest.raises(UserError, match="evaluation is a link to a folder, which --overwrite does not remove"):
        run.check(resume=False, overwrite=True)
    assert run.model.exists()
    (run.path / "evaluation").unlink()
    assert run.check(resume=False, overwrite=True) is False
