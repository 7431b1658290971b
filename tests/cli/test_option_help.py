"""The command line explains the options of a method and of a suite."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mixskd.cli.main import main
from mixskd.config.registry import NETWORKS
from mixskd.config.settings import Setting, fields_of
from mixskd.evaluation.suites import SUITES
from mixskd.methods import METHODS

WITHOUT_TORCH = """
import sys, mixskd.cli.main
for words in (["train"], ["detect", "train"], ["evaluate"], ["show-data"], ["benchmark"]):
    try: mixskd.cli.main.main([*words, "--help"])
    except SystemExit as ended: assert ended.code == 0
assert 'torch' not in sys.modules
"""


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The help, with single blanks."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def explained(setting: Setting) -> str:
    meaning = setting.meaning.replace("``", "")
    assert meaning.endswith(".")
    return f"{setting.flag} ({setting.type}; default {setting.default}) {meaning}"


@pytest.mark.parametrize("name", [*METHODS, *NETWORKS])
def test_each_option_of_each_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = {**METHODS, **NETWORKS}[name]
    text = shown(["train", "--method", name, "--help"], capsys)
    assert f"Hyper-parameters of {name}:" in text
    for setting in fields_of(kind.Config, "method."):
        assert explained(setting) in text
    assert "--run.epochs" in text


@pytest.mark.parametrize("suite", SUITES)
def test_each_option_of_each_suite(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["evaluate", "--help", "--suite", suite], capsys)
    for setting in fields_of(SUITES[suite], f"{suite}."):
        assert explained(setting) in text


def test_presets_and_several_suites(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["train", "--method", "mixskd", "--help"], capsys)
    assert "preset stable: feature_distance normalised, beta_warmup 0.25 preset light: branches false" in text
    text = shown(["evaluate", "--suite", "fgsm, pgd", "--help"], capsys)
    assert "--fgsm.epsilons" in text
    assert "--pgd.steps" in text
    assert "--ood.data" in shown(["evaluate", "--suite", "all", "--help"], capsys)


@pytest.mark.parametrize("verb", ["train", "benchmark", "show-data"])
def test_the_plain_help_says_how_and_names_them(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([verb, "-h"], capsys)
    *_, how = text.partition(f"mixskd {verb} --help --method NAME explains them; NAME is one of ")
    assert set(METHODS) <= set(how.split(", "))


@pytest.mark.parametrize(("verb", "network"), [("detect", "faster_rcnn"), ("segment", "deeplabv3")])
def test_help_of_detect_and_segment_explains_the_networks_options(
    verb: str, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown([verb, "train", "--help"], capsys)
    for setting in fields_of(NETWORKS[network].Config, "method."):
        assert setting.meaning.replace("``", "") in text


def test_the_plain_help_needs_no_torch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--help", "--method", "mixkd"], "unknown method 'mixkd'; did you mean 'mixskd'?"),
        (["evaluate", "--suite", "fgms", "--help"], "unknown suite 'fgms'; did you mean 'fgsm'?"),
    ],
)
def test_a_wrong_name_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
