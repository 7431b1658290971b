"""Links of the pages to files outside docs/ lead there, in the repository and in the built site."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for folder in ("docs", "results", "benchmarks") for page in (ROOT / folder).rglob("*.md")),
]
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def test_relative_links_lead_to_files() -> None:
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 200
    assert [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def build(folder: Path, link: str) -> subprocess.CompletedProcess[str]:
    """A site of two pages and a few results, built with the settings of ours that concern links."""
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    hooks = [str(ROOT / hook) for hook in ours["hooks"]]
    settings = {"site_name": "small", "validation": ours["validation"], "hooks": hooks, "plugins": []}
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    files = {
        "docs/index.md": f"# Start\n\n[results](../{link}), [web](https://example.org/a)",
        "docs/methods/one.md": "# One\n\n[table](../../results/a/table.md), [report](../../results/report.html)",
        "results/README.md": "# Results\n\n[start](../docs/index.md#start), [all](a), [table](a/table.md)",
        "results/a/table.md": "# Table\n", "results/a/runs.csv": "1\n", "results/report.html": "<p>",
        "results/other.csv": "2\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_linked_files_are_in_the_site(tmp_path: Path) -> None:
    done = build(tmp_path, "results/README.md#results")
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    wanted = {
        "index.html": ["results/#results"],
        "methods/one/index.html": ["../../results/a/table/", "../../results/report.html"],
        "results/index.html": ["../#start", "a/", "a/table/"],
        "results/a/index.html": ["runs.csv", "table/"],
    }
    for page, links in wanted.items():
        text = (site / page).read_text(encoding="utf-8")
        article = text[text.index('role="main"') : text.index("<footer")]
        assert re.findall(r'<a href="(?!https:)([^"]*)"', article) == links
    assert not (site / "results" / "other.csv").exists()  # nobody links to it


@pytest.mark.parametrize(
    "link", ["results/nothing.md", "results/README.md#nothing", "results/nothing.csv", "../out.md"]
)
def test_a_dead_link_fails_the_build(link: str, tmp_path: Path) -> None:
    done = build(tmp_path, link)
    assert done.returncode != 0
    assert "nothing" in done.stdout + done.stderr or "out.md" in done.stderr
