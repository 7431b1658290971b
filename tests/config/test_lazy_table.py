"""A table of classes imports each one at its first use, and no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mixskd.config.lazy_table import LazyTable

NO_TORCH = """
import sys
from mixskd.config.registry import METHODS, NETWORKS
from mixskd.evaluation.suites import SUITES
for table in (METHODS, NETWORKS, SUITES):
    assert list(table) and next(iter(table)) in table and "nothing" not in table and len(table) > 2
assert "torch" not in sys.modules
"""


def test_names_of_the_tables_need_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_class_is_imported_when_it_is_read() -> None:
    table = LazyTable({"fraction": "fractions:Fraction", "missing": "fractions:Missing", "text": str})
    assert table["fraction"].__name__ == "Fraction"
    assert table["text"] is str
    with pytest.raises(AttributeError):
        table["missing"]


def test_class_is_found_by_its_own_name() -> None:
    table = LazyTable({"fraction": "fractions:Fraction", "text": str, "missing": "nowhere:Missing"})
    assert table.class_called("Fraction") is table["fraction"]
    assert table.class_called("str") is str
    assert table.class_called("Other") is None


def test_table_can_be_changed() -> None:
    table = LazyTable({"text": str})
    table["number"] = int
    del table["text"]
    assert dict(table) == {"number": int}
