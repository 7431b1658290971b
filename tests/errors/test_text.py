"""Text from files in every medium that shows it."""

from __future__ import annotations

import csv
import html.parser
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixskd.errors.text import MEDIA, counted, safe, to_json, visible
from mixskd.reporting.tables.cells import comma_separated, latex, markdown

SOME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Ünï çödé 猫 😀", "Ünï çödé 猫 😀"),
        ("new\nline: 100.0 %", r"new\nline: 100.0 %"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("cat\u202egnp.exe", r"cat\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("tab\tbell\x07", r"tab\tbell\x07"),
        ("line\u2028end", r"line\u2028end"),
        ("\udcff.jpg", r"\xff.jpg"),
        ("\x9b2J", r"\x9b2J"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert safe(text, "terminal") == shown


@pytest.mark.parametrize(
    ("medium", "text", "shown"),
    [
        ("csv", "=cmd()", "'=cmd()"),
        ("csv", "+1", "'+1"),
        ("csv", "-1", "'-1"),
        ("csv", "@SUM(A1)", "'@SUM(A1)"),
        ("csv", "a=b", "a=b"),
        ("html", "<script>'\"&", "&lt;script&gt;&#x27;&quot;&amp;"),
        ("latex", r"\input{x}%$", r"\textbackslash{}input\{x\}\%\$"),
        ("markdown", "<img src=x>", "&lt;img src=x>"),
        ("markdown", "[a](http://b)", r"[a]\(http&#58;//b)"),
        ("markdown", "a|b", r"a\|b"),
        ("markdown", "**bold** `x`", r"\*\*bold\*\* \`x\`"),
        ("markdown", "label_smoothing", "label_smoothing"),
        ("markdown", "_x_", r"\_x\_"),
        ("markdown", "&lt;b&gt;", "&amp;lt;b&amp;gt;"),
    ],
)
def test_each_medium_shows_the_text_as_it_is(medium: str, text: str, shown: str) -> None:
    assert safe(text, medium) == shown


@SOME
@given(st.text(st.characters(exclude_categories=()), max_size=30), st.sampled_from(sorted(MEDIA)))
def test_any_text_is_one_line_without_control_characters(text: str, medium: str) -> None:
    shown = safe(text, medium)
    assert shown.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@SOME
@given(st.text(max_size=20))
def test_html_reads_back_as_the_visible_text(text: str) -> None:
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

        def handle_starttag(self, tag: str, attrs: list) -> None:
            raise AssertionError(tag)

    reader = Reader()
    reader.feed(f"<p>{safe(text, 'html')}</p>".removeprefix("<p>").removesuffix("</p>"))
    reader.close()
    assert "".join(found) == visible(text)


def test_tables_show_names_from_files_as_they_are() -> None:
    table: list = [{"method": "=cmd()\n| x", "n": None}]
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert rows[0]["method"] == r"'=cmd()\n| x"
    assert len(markdown(table).splitlines()) == 3
    assert r"\textbackslash{}n" in latex(table)


def test_json_has_no_bare_nan() -> None:
    text = to_json({"loss": float("nan"), "list": [float("inf"), 1.5, "NaN"], "whole": 3})
    assert json.loads(text) == {"loss": None, "list": [None, 1.5, "NaN"], "whole": 3}


def test_counted_adds_the_plural() -> None:
    assert [counted(n, "process", "es") for n in (0, 1, 1200)] == ["0 processes", "1 process", "1,200 processes"]
