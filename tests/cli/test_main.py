"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mixskd.cli.main import main
from mixskd.config import recipes, to_dict
from mixskd.config.build import build_experiment, read_experiment


def test_help_and_mistakes_in_settings_need_no_torch() -> None:
    code = (
        "import sys, mixskd.cli.main\nmain = mixskd.cli.main.main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "assert main(['train', '--optim.lr', 'fast']) == main(['train', '--data.sorce', 'x']) == 2\n"
        "assert main(['compare', '--epochs', 'x']) == 2\n"
        "assert main(['probe', '--data', 'd', '--backbone', 'b', '--data.s', '1']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_no_word_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "digit"], "did you mean 'digits'"),
        (["train", "--method", "mixkd"], "did you mean 'mixskd'"),
        (["train", "--backbone", "resnet8"], "unknown backbone 'resnet8'"),
        (["train", "--method.temprature", "4"], "did you mean 'method.temperature'"),
        (["train", "--optim.lrr", "4"], "did you mean 'optim.lr'"),
        (["train", "--lr", "4"], "did you mean '--optim.lr'"),
        (["train", "--method.alpha", "0"], "alpha must be above 0"),
        (["train", "--method.temperature", "-1"], "temperature must be above 0"),
        (["train", "--epochs", "many"], "run.epochs must be a whole number"),
        (["train", "--seed", "-1"], "run.seed must be 0 or above"),
        (["train", "--data.workers", "-1"], "data.workers must be from 0 to 1,024"),
        (["train", "--optim.lr", "nan"], "optim.lr must be above 0"),
        (["train", "--optim.weight-decay", "-0.1"], "optim.weight_decay must be 0 or above"),
        (["train", "--batch-size", "5000"], "larger than the training set"),
        (["train", "--data", "no/where"], "there is no data at"),
        (["train", "--backbone", "densenet_40_12", "--run.device", "cuda:77"], "device 'cuda:77' does not exist"),
        (["train", "--run.precision", "fp16", "--run.device", "cpu"], "fp16"),
        (["train", "--run.sync-bn", "true", "--run.device", "cpu"], "run.sync_bn needs GPUs"),
        (["train", "--run.compile", "on"], "run.compile must be auto, always or never"),
        (["train", "--method.mix", "cutmix", "--method.mix.foo", "1"], "method.mix.foo cannot be set"),
        (["benchmark", "--variants", ",", "--run.device", "cpu"], "--variants names no variant"),
        (["benchmark", "--variants", "plane", "--run.device", "cpu"], "did you mean 'plain'"),
        (["train", "--resume", "--out", "nothing"], "nothing to resume"),
        (["evaluate", "nothing"], "no model at"),
        (["export", "nothing", "--to", "onnxx"], "invalid choice"),
        (["evaluate", "nothing", "--batch-size", "0"], "batch_size must be above 0"),
        (["predict", "nothing", "image", "--top", "-1"], "top must be above 0"),
        (["evaluate", "nothing", "--jso"], "unknown argument '--jso'; did you mean '--json'"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("mixskd: error: ")
    assert message in error
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_flags_lie_over_the_file_over_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {lr: 0.2, weight_decay: 1.0e-3}\nmethod: {temperature: 5}\n")
    argv = ["train", "cifar100", "--config", str(file), "--optim.lr=0.3", "--method.beta", "2", "--epochs", "7"]
    assert main([*argv, "--print-config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    experiment = read_experiment(printed)
    assert (experiment.optim.lr, experiment.optim.weight_decay, experiment.run.epochs) == (0.3, 1e-3, 7)
    options = experiment.method.options
    assert (options["temperature"], options["beta"], options["alpha"]) == (5.0, 2.0, 0.4)
    assert build_experiment(to_dict(experiment)) == experiment


def test_groups_as_text_alone_keep_it_under_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: photos\nmethod: mixskd\nmethod.discriminator: off\n")
    argv = ["train", "--config", str(file), "--data.workers", "4", "--method.temperature", "5"]
    assert main([*argv, "--print-config"]) == 0
    experiment = build_experiment(yaml.safe_load(capsys.readouterr().out))
    assert (experiment.data.source, experiment.data.workers) == ("photos", 4)
    assert experiment.method.name == "mixskd"
    assert (experiment.method.options["temperature"], experiment.method.options["discriminator"]) == (5.0, "off")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {milestones: null}", "optim.milestones has no value"),
        ("optim: {milestones: true}", "optim.milestones must be"),
        ("out:", "out has no value"),
        ("data: [photos]", "data must be text or hold keys"),
        ("1: 2", "unknown key 1"),
    ],
)
def test_a_mistake_in_the_file(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text + "\n")
    assert main(["train", "--config", str(tmp_path / "mine.yaml"), "--print-config"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_are_whole_experiments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--print-config"]) == 0
    assert recipes.description(name)
    assert "backbone:" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["methods", "datasets", "recipes"])
def test_lists(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 3
    assert main(["list", kind]) == 0


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mixskd", "train", "--print-config"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_train_evaluate_predict(tmp_path: Path, npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    argv = ["train", "--data", str(npz), "--epochs", "1", "--batch-size", "4", "--out", out, "--method", "mixup"]
    assert main(argv) == 0
    assert "top-1" in capsys.readouterr().out
    assert main(["evaluate", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert main(["evaluate", f"{out}/model.safetensors"]) == 2
    assert main(["evaluate", f"{out}/model.safetensors", "--data", str(npz)]) == 0


def test_training_starts_without_what_only_evaluation_and_other_data_need() -> None:
    code = (
        "import sys, mixskd.training.run, mixskd.evaluation.probe\n"
        "assert not {'torchmetrics', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
