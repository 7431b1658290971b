"""What is published: three files that are enough, a card that says what is known, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import mixskd
from mixskd.artifacts.model_file import store_calibration
from mixskd.cli.main import main
from mixskd.deploy import hub
from mixskd.errors import UserError
from tests.deploy.support import photo, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.safetensors")


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_pushed_folder_has_model_preprocessing_and_card(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "pushed"
    assert main(["push", str(model), "me/flowers", "--to-folder", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors", "preprocess.json"]
    assert (folder / "model.safetensors").read_bytes() == model.read_bytes()
    file = photo(tmp_path / "a.jpg", 3)
    assert mixskd.predict(folder, [file]) == mixskd.predict(model, [file])
    about = json.loads((folder / "preprocess.json").read_text())
    loaded = mixskd.load(model)
    assert about["classes"] == list(loaded.classes)
    assert (about["image_size"], about["mean"], about["std"]) == (72, list(loaded.mean), list(loaded.std))
    assert (about["resize"]["rule"], about["resize"]["short_side"]) == ("crop", loaded.preprocess.resized)
    card = (folder / "README.md").read_text()
    assert front_matter(card)["pipeline_tag"] == "image-classification"
    assert 'hf_hub_download("me/flowers", "model.safetensors")' in card
    assert "## Scores" not in card
    assert all(f"{i}. {name}\n" in card for i, name in enumerate(loaded.classes))


def test_the_card_of_a_run_has_its_method_and_scores(tmp_path: Path, npz: Path) -> None:
    run = tmp_path / "run"
    summary = mixskd.train(
        data={"source": str(npz), "val_holdout": 0.5}, backbone="wrn_10_1", method="mixup", out=str(run),
        run={"epochs": 1, "batch_size": 3, "progress": False, "precision": "fp32"},
    )  # fmt: skip
    store_calibration(run, 1.5, threshold=0.25)
    mixskd.push(run, to_folder=tmp_path / "pushed")
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert "mixup" in front_matter(card)["tags"]
    for split in ("val", "test"):
        scores = summary["scores"][split]
        assert f"| {split} | 6 | {scores['top1']:.2f} | {scores['top5']:.2f} | {scores['loss']:.4f} |" in card
    assert "| method | mixup |" in card
    assert "| backbone | wrn_10_1 |" in card
    assert "the best epoch on val" in card
    assert "divides the logits by 1.5" in card
    assert str(tmp_path) not in card
    assert json.loads((tmp_path / "pushed" / "preprocess.json").read_text())["threshold"] == 0.25


def test_card_escapes_foreign_names(tmp_path: Path) -> None:
    file = write_model(tmp_path / "m.safetensors", classes=("<script>", "a\n# b", "[x](http://y)"))
    mixskd.push(file, to_folder=tmp_path / "pushed")
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert not any(bad in card for bad in ("<script>", "\n# b", "[x](http://y)"))


def test_existing_files_are_kept(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    argv = ["push", str(model), "--to-folder", str(tmp_path)]
    assert main(argv) == 2
    assert "README.md exists already" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "preprocess.json").exists()
    assert main([*argv, "--overwrite"]) == 0
    assert "# m\n" in (tmp_path / "README.md").read_text()


class Api:
    """The hub, in memory."""

    sent: dict[str, bytes] = {}
    private: bool | None = None

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> SimpleNamespace:
        assert exist_ok
        Api.private = private
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert repo_id == "me/flowers"
        Api.sent = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


def test_push_uploads_the_same_files(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "needed", lambda *_: SimpleNamespace(HfApi=Api))
    assert mixskd.push(model, "flowers") == "https://huggingface.co/me/flowers"
    assert Api.private is True
    mixskd.push(model, "flowers", to_folder=tmp_path / "pushed")
    assert Api.sent == {path.name: path.read_bytes() for path in (tmp_path / "pushed").iterdir()}
    mixskd.push(model, "flowers", public=True)
    assert Api.private is False


def test_network_error_gives_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_of_theirs = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_of_theirs, "HfApi", lambda: hub_of_theirs.hf_api.HfApi(endpoint="http://127.0.0.1:9"))
    assert main(["push", str(model), "me/flowers"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot push to me/flowers: " in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name the place to push to"),
        ({"repository": "a/b/c"}, "is not the name of a repository"),
        ({"repository": "me/"}, "is not the name of a repository"),
        ({"repository": "../x"}, "is not the name of a repository"),
        ({"repository": "me/fl owers"}, "is not the name of a repository"),
    ],
)
def test_mistake_gives_one_line_of_error(arguments: dict, message: str, model: Path) -> None:
    with pytest.raises(UserError, match=message):
        mixskd.push(model, **arguments)


def test_missing_package_is_named_with_its_extra(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'mixskd\[hub\]'"):
        mixskd.push(model, "me/flowers")


def test_calibration_keeps_the_weights(model: Path) -> None:
    before = mixskd.load(model).export_state_dict()
    store_calibration(model, 2.5, threshold=0.5)
    after = mixskd.load(model).export_state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before | after)
