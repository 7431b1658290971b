"""What README and docs show is so: their Python runs, their commands parse, their tables are those of the code."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

import mixskd.data
from mixskd.backbones import BACKBONES, build_backbone
from mixskd.cli.main import main, parse
from mixskd.config import convert
from mixskd.config.merging import merge
from mixskd.data.policies import POLICIES
from mixskd.data.sources.arrays import load_digits
from mixskd.evaluation.runner import choose_suites
from mixskd.methods import METHODS, Method
from tests.conftest import make_toy
from tests.deploy.photo_run import make_run, photos

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (.+?) \|$", flags=re.MULTILINE)
DRY = {"train": "--print-config", "compare": "--dry-run"}  # all but the work
NOT_OURS = ("lightning", "accelerate", "transformers")  # run where installed; neither is a dependency


class Example(NamedTuple):
    """A Python block of a page: a program, or a file (``title``) that a later program of that page imports."""

    page: Path
    title: str
    code: str


def examples(language: str) -> list[Example]:
    return [
        Example(page, title, code)
        for page in PAGES
        for found, title, code in FENCE.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))  # run from top to bottom, in one folder
PROGRAMS = [e for e in examples("python") if not e.title and e.page not in TUTORIALS]
FILES = [e for e in examples("python") if e.title]
COMMANDS = [
    pytest.param(line.split("#")[0].strip(), id=f"{e.page.stem}-{i}")
    for e in examples("bash")
    for i, line in enumerate(e.code.splitlines())
    if line.startswith("mixskd ") and e.page not in TUTORIALS
] + [
    pytest.param(command, id=f"{page.stem}-within-a-sentence-{i}")
    for page in PAGES
    for i, command in enumerate(re.findall(r"`(mixskd train (?!--help)[^`]+)`", page.read_text(encoding="utf-8")))
    if page.name != "new_method.md"  # of a package that is not installed
]


def imports(program: Example, package: str) -> bool:
    return re.search(rf"^(import|from) {package}\b", program.code, flags=re.MULTILINE) is not None


def as_parameter(number: int, program: Example) -> Any:
    lenient = any(imports(program, package) for package in NOT_OURS)
    marks = [pytest.mark.filterwarnings("ignore")] if lenient else []
    return pytest.param(program, id=f"{program.page.stem}-{number}", marks=marks)


@pytest.fixture
def registries() -> Iterator[None]:
    """METHODS and BACKBONES, put back as they were."""
    before = [(registry, dict(registry)) for registry in (METHODS, BACKBONES)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def write_files(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    for file in FILES:
        if file.page == page:
            (folder / file.title).write_text(file.code, encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(file.title).stem, raising=False)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph, a run, and what the commands of the page on exports make of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("exports")
    run = make_run(folder, "resnet18")
    shutil.copy(photos(folder / "photos")[0], folder / "new.jpg")  # a PNG by its content, as Pillow sees
    page = (DOCS / "deploy.md").read_text(encoding="utf-8")
    programs = " ".join(code for language, _, code in FENCE.findall(page) if language == "python")
    with contextlib.chdir(folder):
        for line in re.findall(r"^mixskd export .*$", page, flags=re.MULTILINE):
            words = shlex.split(line.replace("runs/photos", str(run)))[1:]
            if words[words.index("--out") + 1] in programs:
                assert main(words) == 0
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the digits, since what these programs reach is not looked at; a comparison starts one process."""
    whole = load_digits()
    splits = {name: split.subset(np.arange(0, len(split), 10)) for name, split in whole.splits.items()}
    monkeypatch.setattr(mixskd.data.loading, "load_digits", lambda *_: replace(whole, splits=splits))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


@pytest.mark.usefixtures("registries", "quick")
@pytest.mark.parametrize("program", [as_parameter(i, program) for i, program in enumerate(PROGRAMS)])
def test_program(
    program: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for package in NOT_OURS:
        if imports(program, package):
            pytest.importorskip(package)
    write_files(program.page, tmp_path, monkeypatch)
    monkeypatch.chdir(request.getfixturevalue("exports") if program.page.name == "deploy.md" else tmp_path)
    exec(compile(program.code, str(program.page), "exec", dont_inherit=True), {"__name__": "__main__"})


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    if words[0] in DRY and "--table" not in words:
        assert main([*(word for word in words if word != "--resume"), DRY[words[0]]]) == 0
    else:
        arguments = parse(words)
        dotted = arguments.dotted
        if words[0] == "evaluate" and arguments.suite:
            choose_suites(arguments.suite, merge(dotted), len(arguments.runs))
        else:
            assert not dotted or words[0] == "benchmark"


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in TUTORIALS])
@pytest.mark.long
def test_tutorial(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = FENCE.findall(page.read_text(encoding="utf-8"))
    assert len(cells) >= 3
    variables: dict[str, Any] = {"__name__": "__main__"}
    for language, _, code in cells:
        if language == "python":
            exec(compile(code, str(page), "exec", dont_inherit=True), variables)
        for line in code.splitlines() if language == "bash" else ():
            assert main(shlex.split(line)[1:]) == 0, line


def test_the_example_of_a_new_method_teaches_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(DOCS / "new_method.md", tmp_path, monkeypatch)
    kind: type[Method] = importlib.import_module("second_view").SecondView
    method = kind(make_toy(), temperature=2.0)
    images, views, labels = torch.randn(6, 3, 8, 8).double(), torch.randn(6, 1, 3, 8, 8).double(), torch.arange(6) % 5
    terms = method(images, labels, views=views)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.backbone.parameters())
    a, b = method.backbone(torch.cat([images, views[:, 0]])).softmax(1).chunk(2)
    soft_a, soft_b = (p**0.5 / (p**0.5).sum(1, keepdim=True) for p in (a, b))
    divergence = (soft_b * (soft_b / soft_a).log()).sum(1).mean()
    expected = -a[range(6), labels].log().mean() + 4 * divergence
    torch.testing.assert_close(terms["loss"], expected)


def page_of(method: type[Method]) -> str:
    return (DOCS / "methods" / f"{method.__module__.rpartition('.')[2]}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_names_every_option_with_its_default(name: str) -> None:
    rows = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(page_of(METHODS[name]))]
    stated = {option: cells[1] for cells in rows for option in re.findall(r"`(\w+)`", cells[0]) if len(cells) == 3}
    switches = set(re.findall(r"`(\w+)`", " ".join(cells[-1] for cells in rows)))
    for field in fields(METHODS[name].Config):
        assert field.name in stated or field.name in switches, f"{field.name} is not on the page of {name}"
        if stated.get(field.name):
            kind = type(field.default) if field.default is not MISSING else str
            assert convert(stated[field.name], kind, field.name) == field.default


def test_the_table_of_methods_is_that_of_the_code() -> None:
    text = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    rows = {}
    for row in ROW.findall(text):
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) == 6 and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = cells
    assert list(rows) == list(METHODS)
    for name, (_, link, supplied, images, extra, _) in rows.items():
        with torch.device("meta"):
            backbone = build_backbone("wrn_16_2", 100)
            method = METHODS[name](backbone)
        attached = sum(p.numel() for p in method.parameters()) - sum(p.numel() for p in backbone.parameters())
        stated = re.match(r"[\d,]+", extra)
        assert (int(stated[0].replace(",", "")) if stated else 0) == attached, name
        assert f"({METHODS[name].__module__.rpartition('.')[2]}.md)" in link
        needs = method.needs
        forwards = (needs.views + needs.partners) + (name in ("mixskd", "regmixup", "tfkd_self", "ict", "kd"))
        assert METHODS[name].about is not None
        assert int(images[0]) == METHODS[name].about.images == forwards, name
        assert (f"{needs.views} views" in supplied) == (needs.views > 1), name
        assert (f"{needs.partners} partner" in supplied) == (needs.partners > 0), name
        assert ("slots" in supplied) == needs.slots, name
        assert ("indices" in supplied) == needs.indices, name


def test_readme_and_pages_name_all_methods_and_policies() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    policies = (DOCS / "methods" / "policies.md").read_text(encoding="utf-8")
    named = [name for name in POLICIES if name != "none"]
    variants = {name for name in named if any(name.startswith(f"{other}_") for other in named)}
    assert [name for name in (*METHODS, *named) if name not in variants and f"`{name}`" not in readme] == []
    assert [name for name in named if f"`{name}`" not in policies] == []


def test_the_messages_explained_are_those_of_the_code() -> None:
    source = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)  # a message over two lines
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", text, flags=re.MULTILINE)
    parts = [part.strip(" :)") for message in messages for part in message.split("...")]
    assert messages
    assert [part for part in parts if part not in source] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w/]+\.md", str(navigation))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS))


@pytest.mark.parametrize("script", [pytest.param(path, id=path.stem) for path in (DOCS / "figures").glob("*.py")])
def test_a_picture_is_what_its_script_draws(script: Path) -> None:
    stored, drawn = script.with_suffix(".svg").read_text(encoding="utf-8"), runpy.run_path(str(script))["picture"]()
    made_by = re.compile(r"Matplotlib v[\d.]+")
    if made_by.findall(stored) != made_by.findall(drawn):
        pytest.skip(f"{script.stem}.svg was drawn by {made_by.findall(stored)}, which draws other bytes")
    assert stored == drawn
